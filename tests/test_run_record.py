"""What a run is: written down once, and no rows of another run are mixed into it."""

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from images import write_plain
from segment_runs import TABLE, save_model

from dinoidd import __version__
from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER, ManifestInfo, read_manifest_info
from dinoidd.errors import InputError, OutputError
from dinoidd.inference.source import ModelDescription, ModelSource
from dinoidd.segment import run_record
from dinoidd.segment.layout import Layout
from dinoidd.segment.preparation import (
    check_ownership,
    clear,
    make_record,
    prepare_manifest,
    run_identity,
)
from dinoidd.segment.run_record import (
    NAME,
    SUCCESS,
    RunRecord,
    check_same,
    new_record,
    read_record,
    write_record,
)
from dinoidd.segment.tally import Tally
from dinoidd.storage import DEFAULT_OPTIONS, Store


def record(**identity: object) -> RunRecord:
    return new_record(
        identity={"input": "/in", "image size": 64} | identity,
        table=TABLE,
        fingerprint="f" * 64,
        layout=Layout(rows=10, rows_per_chunk=4, rows_per_file=8),
        config={"input": "/in"},
    )


def test_record__comes_back_as_it_was(store: Store) -> None:
    assert read_record(store) is None
    before = record()
    write_record(store, before)
    after = read_record(store)
    assert after == before
    assert after is not None
    assert after.table == TABLE


def test_record__of_a_finished_run() -> None:
    tally = Tally(images=10, ok=9)
    tally.errors["empty"] = 1
    done = record().with_session({"images": 10}).with_result(tally, {"images": 10})
    assert done.counts == {"images": 10, "ok": 9, "errors": {"empty": 1}}
    assert done.finished is not None
    assert done.finished >= done.started
    assert [s["images"] for s in done.sessions] == [10]


def test_record__names_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the code was shipped by `ray job submit --working-dir`, and is not installed."""

    def installed(name: str) -> str:
        if name == "dinoidd":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(run_record, "version", installed)
    versions = record().versions
    assert versions["dinoidd"] == __version__
    assert set(versions) == {"dinoidd", "python", "ray", "torch", "pyarrow", "numpy", "pillow"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": {}}', '{"run_id": "x", "layout": 3}'])
def test_record__that_is_not_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(OutputError, match=r"run\.json is no record .* --restart"):
        read_record(Store.open(str(tmp_path)))


def test_check_same__tells_every_difference(tmp_path: Path) -> None:
    output = Store.open(str(tmp_path))
    check_same(record(), {"input": "/in", "image size": 64}, output)
    with pytest.raises(OutputError) as caught:
        check_same(record(gone=1), {"input": "/other", "image size": 96, "new": 2}, output)
    text = str(caught.value)
    assert "input was '/in' and is '/other'" in text
    assert "image size was 64 and is 96" in text
    assert "gone was 1 and is None" in text
    assert "new was None and is 2" in text
    assert "--restart" in text


def described(**changes: object) -> ModelDescription:
    return ModelSource(**({"preset": "tiny"} | changes)).describe()  # type: ignore[arg-type]


def test_identity__of_other_models_and_settings(tmp_path: Path) -> None:
    config = SegmentConfig(
        input=str(write_plain(tmp_path / "in", 2)), output=str(tmp_path / "out"), preset="tiny"
    )
    output = Store.open(config.output)
    manifest = prepare_manifest(config, output, DEFAULT_OPTIONS)
    checkpoint = str(save_model(tmp_path / "a.safetensors"))
    mine = run_identity(config, manifest, described(), 64)
    others = {
        "model": run_identity(config, manifest, described(preset="small"), 64),
        "model weights": run_identity(config, manifest, described(seed=1), 64),
        "class table": run_identity(
            config, manifest, ModelSource(checkpoint=checkpoint).describe(), 64
        ),
        "dtype": run_identity(config, manifest, described(dtype="bfloat16"), 64),
        "image size": run_identity(config, manifest, described(), 96),
        "max pixels": run_identity(replace(config, max_pixels=5), manifest, described(), 64),
        "max bytes": run_identity(replace(config, max_bytes=5), manifest, described(), 64),
        "manifest sha256": run_identity(config, replace(manifest, sha256="0"), described(), 64),
    }
    written = make_record(config, manifest, described(), mine, 1)
    check_same(written, run_identity(config, manifest, described(), 64), output)
    for name, other in others.items():
        with pytest.raises(OutputError, match=f"{name} was .* and is "):
            check_same(written, other, output)


def test_identity__speed_does_not_count(tmp_path: Path) -> None:
    config = SegmentConfig(
        input=str(write_plain(tmp_path / "in", 2)), output=str(tmp_path / "out"), preset="tiny"
    )
    manifest = prepare_manifest(config, Store.open(config.output), DEFAULT_OPTIONS)
    faster = replace(config, batch_size=2, actors=3, threads=1, rows_per_chunk=7)
    identities = [run_identity(c, manifest, described(), 64) for c in (config, faster)]
    assert identities[0] == identities[1]


def test_record__holds_no_signature(tmp_path: Path) -> None:
    config = SegmentConfig(
        input=str(write_plain(tmp_path / "in", 2)), output=str(tmp_path / "out"), preset="tiny"
    )
    manifest = prepare_manifest(config, Store.open(config.output), DEFAULT_OPTIONS)
    signed = replace(
        config,
        checkpoint="https://me:hush@host/m.safetensors?X-Amz-Signature=hush",
        preset=None,
        endpoint_url="http://me:hush@127.0.0.1:9000",
    )
    written = make_record(signed, manifest, described(), {"fingerprint": "f"}, 1)
    assert "hush" not in json.dumps(written.config)
    assert written.config["checkpoint"] == "https://host/m.safetensors"


def prepared(folder: Path, **changes: object) -> SegmentConfig:
    options = {"input": str(folder / "in"), "output": str(folder / "out"), "preset": "tiny"}
    return SegmentConfig(**(options | changes))  # type: ignore[arg-type]


def prepare(config: SegmentConfig, output: Store) -> ManifestInfo:
    """What a job does with its output before anything else."""
    check_ownership(output)
    if config.restart:
        clear(config, output, output.options)
    return prepare_manifest(config, output, output.options)


def test_prepare_manifest__once(tmp_path: Path) -> None:
    write_plain(tmp_path / "in", 3)
    config = prepared(tmp_path)
    output = Store.open(config.output)
    before = prepare_manifest(config, output, DEFAULT_OPTIONS)
    write_plain(tmp_path / "in", 1, first=7)  # the input is fixed when the run begins
    assert prepare_manifest(config, output, DEFAULT_OPTIONS) == before
    assert before.rows == 3


def test_prepare_manifest__of_another_input(tmp_path: Path) -> None:
    write_plain(tmp_path / "in", 3)
    write_plain(tmp_path / "other", 3)
    output = Store.open(prepared(tmp_path).output)
    prepare_manifest(prepared(tmp_path), output, DEFAULT_OPTIONS)
    config = prepared(tmp_path, input=str(tmp_path / "other"))
    with pytest.raises(InputError, match=f"indexed from {tmp_path}/in, not from .*/other"):
        prepare_manifest(config, output, DEFAULT_OPTIONS)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("place", ["images", "images/2024/08", "manifest"])
def test_check_ownership__refuses_somebody_elses_files(
    new_store, place: str, restart: bool, tmp_path: Path
) -> None:
    """Above all with --restart, which would remove them."""
    write_plain(tmp_path / "in", 1)
    output = new_store()
    output.child(place).write_bytes("holiday.jpg", b"precious")
    config = prepared(tmp_path, output=output.uri, restart=restart)
    with pytest.raises(OutputError, match=f"is not a run of dinoidd, it holds {place}/holiday.jpg"):
        prepare(config, output)
    assert output.child(place).read_bytes("holiday.jpg") == b"precious"


def test_check_ownership__refuses_somebody_elses_record(tmp_path: Path) -> None:
    output = Store.open(str(tmp_path))
    output.write_bytes(NAME, b'{"tool": "another"}')
    with pytest.raises(OutputError, match=r"run\.json is not a record of dinoidd"):
        check_ownership(output)


def finished_run(folder: Path) -> tuple[SegmentConfig, Store]:
    """A folder that looks like a finished run to --restart."""
    write_plain(folder / "in", 3)
    config = prepared(folder)
    output = Store.open(config.output)
    prepare_manifest(config, output, DEFAULT_OPTIONS)
    write_record(output, record())
    output.child("images").write_bytes("part-000000000000-000000000003.parquet", b"rows")
    output.write_bytes(SUCCESS, b"")
    return config, output


def test_restart__throws_the_results_away(tmp_path: Path) -> None:
    config, output = finished_run(tmp_path)
    write_plain(tmp_path / "in", 1, first=7)
    manifest = prepare(replace(config, restart=True), output)
    assert manifest.rows == 4
    assert output.child("images").names() == []
    assert not output.exists(NAME)
    assert not output.exists(SUCCESS)


def test_restart__keeps_everything_if_the_input_is_wrong(tmp_path: Path) -> None:
    config, output = finished_run(tmp_path)
    wrong = replace(config, input=str(tmp_path / "typo"), restart=True)
    with pytest.raises(InputError, match="typo"):
        prepare(wrong, output)
    assert output.exists(SUCCESS)
    assert read_manifest_info(output.child(FOLDER)) is not None
    assert len(output.child("images").names()) == 1


def test_restart__interrupted_can_be_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = finished_run(tmp_path)
    restart = replace(config, restart=True)

    def die(self: Store) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "remove_all", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(restart, output)
    assert not output.exists(SUCCESS)
    assert prepare(restart, output).rows == 3
    assert output.child("images").names() == []
