"""A web server or a mount that is away as a whole ends no image; one that is lost costs itself alone."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from images import write_plain
from segment_runs import proof, rows_of
from test_session_work import session
from test_stages import reader
from web_folder import Web

from dinoidd.errors import ClusterError, OutageError
from dinoidd.segment import stages
from dinoidd.segment.source_check import check_source
from dinoidd.storage import DEFAULT_OPTIONS, Patience, Store

IMAGES = 12


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(write_plain(tmp_path / "images", IMAGES))
    made.up()
    yield made
    made.down()


@pytest.fixture
def read(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stages.ReadImages:
    """Pieces of four, read without patience."""
    monkeypatch.setattr(stages, "STEADY", Patience(attempts=1, seconds=5))
    return begun(reader(web.list_of(IMAGES), tmp_path / "out", rows_per_chunk=4))


def begun(read: stages.ReadImages, *, of_failures: bool = False) -> stages.ReadImages:
    """As a session hands it to its tasks that begins now."""
    made = session(read.layout, Store.open(str(Path(read.manifest.uri).parent)))
    sources = replace(made, of_failures=of_failures)._sources
    return replace(read, witnesses=sources.witnesses)


def kinds(read: stages.ReadImages) -> list[str | None]:
    chunks = range(read.layout.chunks)
    return [kind for chunk in chunks for kind in read(chunk)["error_kind"].to_pylist()]


def mixed(read: stages.ReadImages, web: Web, local: range) -> stages.ReadImages:
    """A run of the same pieces, of whose addresses some are files."""
    names = web.list_of(IMAGES).read_text().splitlines()
    for number in local:
        names[number] = str(web.folder / f"{number:04d}.png")
    path = web.folder.parent / "mixed.txt"
    path.write_text("\n".join(names))
    return reader(path, web.folder.parent / "mixed", rows_per_chunk=4)


def test_read_images__web_server_that_goes_down(read: stages.ReadImages, web: Web) -> None:
    assert read(0)["error_kind"].null_count == 4
    web.down()
    with pytest.raises(OutageError, match="does not answer, nor does any of 12 other") as caught:
        read(1)
    assert caught.value.kind == "unreachable"
    web.up()
    assert read(1)["error_kind"].null_count == 4


def test_read_images__web_server_that_goes_down_within_a_piece(
    read: stages.ReadImages, web: Web
) -> None:
    web.down_after = web.served + 2
    with pytest.raises(OutageError, match="nor does any of 2 other addresses that were asked"):
        read(0)


@pytest.mark.parametrize("dead", [range(1), range(4), range(10)])
def test_read_images__addresses_that_are_dead_while_others_answer(
    dead: range, read: stages.ReadImages, web: Web
) -> None:
    names = [f"/{i:04d}.png" for i in dead]
    web.refuse = lambda path: 503 if path in names else None
    told = ["unreachable" if i in dead else None for i in range(IMAGES)]
    assert kinds(read) == told
    assert kinds(begun(read)) == told


def test_read_images__a_dead_host_beside_another_store(read: stages.ReadImages, web: Web) -> None:
    """One that never answered is not out, although no other web address is there to tell."""
    read = mixed(read, web, range(8))
    web.down()
    assert kinds(begun(read)) == [None] * 8 + ["unreachable"] * 4


def test_read_images__web_server_beside_another_store_goes_down(
    read: stages.ReadImages, web: Web
) -> None:
    read = begun(mixed(read, web, range(8)))
    web.down()
    assert read(0)["error_kind"].null_count == 4
    with pytest.raises(OutageError, match="nor does any of 4 other"):
        read(2)


def test_read_images__that_begins_while_the_web_server_is_down(
    read: stages.ReadImages, web: Web
) -> None:
    """A run goes on later. A retry ends: its rows are known failures."""
    web.down()
    with pytest.raises(OutageError, match="nor does any of 12 other"):
        begun(read)(1)
    assert kinds(begun(read, of_failures=True)) == ["unreachable"] * IMAGES
    web.up()
    read = begun(read, of_failures=True)
    web.down()
    with pytest.raises(OutageError):
        read(1)


def test_check_stores__asks_the_web_server(read: stages.ReadImages, web: Web) -> None:
    """Or a pause would be none: the pipeline would be built again and again."""
    asked = session(read.layout, Store.open(str(Path(read.manifest.uri).parent)))
    web.down()
    for _ in range(2):
        with pytest.raises(OutageError, match="none of 12 addresses answers, http://"):
            asked._check_stores()
    web.up()
    asked._check_stores()


@pytest.mark.parametrize("wrong", ["http://", "http://[::1/x.png?key=secret"])
def test_read_images__an_address_that_is_none(
    read: stages.ReadImages, web: Web, wrong: str
) -> None:
    names = web.list_of(4).read_text().splitlines()
    path = web.folder.parent / "wrong.txt"
    path.write_text("\n".join([*names[:3], wrong]))
    read = reader(path, web.folder.parent / "wrong", rows_per_chunk=4)
    table = begun(read)(0)
    assert table["error_kind"].to_pylist() == [None, None, None, "unreadable"]
    assert "secret" not in str(table["uri"].to_pylist() + table["error"].to_pylist())
    read = begun(read)
    web.down()
    with pytest.raises(OutageError, match="nor does any of 3 other"):
        read(0)


def test_read_images__refusals_are_answers(read: stages.ReadImages, web: Web) -> None:
    web.refuse = lambda path: 503 if path < "/0004.png" else 403
    assert read(0)["error_kind"].to_pylist() == ["unreachable"] * 4
    assert read(1)["error_kind"].to_pylist() == ["forbidden"] * 4


def test_read_images__node_without_the_mount(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "in", IMAGES)
    read = begun(reader(folder, tmp_path / "out", rows_per_chunk=4))
    (folder / "0001.png").unlink()
    assert read(0)["error_kind"].to_pylist() == [None, "missing", None, None]
    folder.rename(tmp_path / "not mounted")
    with pytest.raises(ClusterError) as caught:
        read(1)
    assert str(caught.value) == (
        f"{folder} is not there on {socket.gethostname()}, nor are the folders of 12 other images: mount "
        "them on every node, or take this one out. What is done is kept: run the same command again to "
        "resume"
    )


def test_read_images__folder_that_vanished_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_plain(tmp_path / "in" / name, 2)
    read = begun(reader(tmp_path / "in", tmp_path / "out", rows_per_chunk=2))
    shutil.rmtree(tmp_path / "in" / "b")
    assert kinds(read) == [None, None, "missing", "missing", None, None]


def test_read_images__all_folders_are_gone(tmp_path: Path) -> None:
    """This node may lack the mount. To a retry they are known failures."""
    read = reader(write_plain(tmp_path / "in", 4), tmp_path / "out", rows_per_chunk=2)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(ClusterError, match="nor are the folders of 4 other images"):
        begun(read)(0)
    assert kinds(begun(read, of_failures=True)) == ["missing"] * 4


def test_check_source__folders_of_which_nothing_is_known(tmp_path: Path) -> None:
    """Their errors say neither that a mount is there nor that it is not."""
    gone, long = f"{tmp_path}/gone/a.png", f"{tmp_path}/{'x' * 300}/a.png"
    check_source([(gone, "missing"), (long, "unreadable")], [], DEFAULT_OPTIONS)
    check_source([(gone, "missing"), (long, "unreadable")], [long], DEFAULT_OPTIONS)
    with pytest.raises(ClusterError, match=f"{tmp_path}/gone is not there"):
        check_source([(gone, "missing")], [f"{tmp_path}/away/b.png"], DEFAULT_OPTIONS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_segment__web_server_goes_down_in_the_middle(web: Web, tmp_path: Path) -> None:
    """The run waits and ends with what it did; when the server is back, the same command ends it."""
    where = ["--input", web.list_of(IMAGES), "--output", tmp_path / "out", "--preset", "tiny"]
    size = ["--batch-size", 2, "--rows-per-chunk", 2, "--rows-per-file", 4]
    command = [sys.executable, "-m", "dinoidd", "segment", *where, *size]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command), "--outage-patience", "5"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
        )

    web.down_after = IMAGES + 6  # it is asked for all of them first
    ran = run()
    assert ran.returncode == 2, ran.stderr
    assert "The run waits up to 5s (--outage-patience); what is done is kept" in ran.stderr
    assert "the same command goes on from there" in ran.stderr
    assert "the store answers again" not in ran.stderr  # or it would have loaded the model again
    web.down_after = None
    web.up()
    ran = run()
    assert ran.returncode == 0, ran.stderr
    assert proof(tmp_path / "out").ok == IMAGES
    assert [row["error_kind"] for row in rows_of(tmp_path / "out")] == [None] * IMAGES
