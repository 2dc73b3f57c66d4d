"""The error rows of a run, and where their images are."""

from pathlib import Path

from test_output_file import LAYOUT, Folders

from dinoidd.data.manifest import FOLDER, write_manifest
from dinoidd.output.reader import RunReader
from dinoidd.storage import ObjectInfo, Store
from dinoidd.upkeep.error_rows import error_rows, looked_up

CLOSED = "http://127.0.0.1:9"  # nobody listens there


def test_looked_up__has_the_address_that_the_run_was_given(tmp_path: Path) -> None:
    """Tried without its signature, a presigned address would be `forbidden` for ever."""
    run = Store.open(str(tmp_path))
    given = [f"{CLOSED}/{i}.png?X-Amz-Signature=hush{i}" for i in range(LAYOUT.rows)]
    listed = [ObjectInfo(uri=uri, size=None) for uri in given]
    manifest = write_manifest(run.child(FOLDER), listed, input_uri="list.txt", counts={})
    folders = Folders(run)
    for file in range(LAYOUT.files):
        folders.write_chunks_of(file)
        folders.merge(file)
    failed = list(error_rows(RunReader(run.uri, run.options)))
    assert failed == [0, 5, 10, 15, 20]
    found = list(looked_up(failed, run, manifest.sha256))
    assert found == [(i, ObjectInfo(uri=given[i], size=None)) for i in failed]
    assert list(error_rows(RunReader(run.uri, run.options), ["timeout"])) == []
