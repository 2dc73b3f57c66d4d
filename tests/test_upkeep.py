"""`dinoidd retry` and `dinoidd compact` on a real local Ray, whole and stopped in their middle."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from images import write_plain
from segment_runs import Ran, command, embedded_ray, proof, rows_of, save_model, segment

import dinoidd.upkeep.compact
import dinoidd.upkeep.retry
from dinoidd.output.reader import COMPACTION, RETRY, RETRY_STATE
from dinoidd.segment.layout import Layout

IMAGES = 40
BROKEN = (3, 8, 9, 21, 39)  # no images
GONE = (0, 22)
ERRORS = sorted([*BROKEN, *GONE])
PER_FILE = 8
ARGUMENTS = ("--batch-size", 4, "--rows-per-chunk", 4, "--rows-per-file", PER_FILE)


class Killed(BaseException):
    """Stands for the driver's death."""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


@dataclass(frozen=True)
class Place:
    """A run of 40 images in 5 files, 7 of them error rows; `mend` puts those right."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def segment(self, *more: object) -> Ran:
        where = ("--input", self.folder / "in" / "list.txt", "--output", self.out)
        model = ("--checkpoint", self.folder / "model.safetensors")
        return segment(*where, *model, *ARGUMENTS, *more)

    def mend(self, *numbers: int) -> None:
        for number in numbers:
            shutil.copy(self.image(1), self.image(number))

    def image(self, number: int) -> Path:
        return self.folder / "in" / f"{number:04d}.png"

    def record(self) -> dict[str, Any]:
        return json.loads((self.out / "run.json").read_text())

    def leave_half_a_file(self) -> None:
        """As a task does that is killed while it writes."""
        (self.out / "images" / f".{'0' * 32}.tmp").write_bytes(b"half")

    def parts(self) -> list[str]:
        return sorted(p.name for p in (self.out / "images").iterdir())

    def errors(self) -> list[int]:
        return [row["image_id"] for row in rows_of(self.out) if row["status"] == "error"]


def names(per_file: int) -> list[str]:
    layout = Layout(rows=IMAGES, rows_per_chunk=4, rows_per_file=per_file)
    return [layout.file_name(file) for file in range(layout.files)]


@pytest.fixture(scope="module")
def finished(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("upkeep"))
    write_plain(place.folder / "in", IMAGES)
    listed = "".join(f"{number:04d}.png\n" for number in range(IMAGES))
    (place.folder / "in" / "list.txt").write_text(listed)
    for number in BROKEN:
        place.image(number).write_bytes(b"no image")
    for number in GONE:
        place.image(number).unlink()
    save_model(place.folder / "model.safetensors")
    ran = place.segment()
    assert ran.status == 0, ran.err
    assert place.errors() == ERRORS
    return place


@pytest.fixture
def place(finished: Place, tmp_path: Path) -> Place:
    """A copy of its output; the images that its rows name stay those of the first one."""
    shutil.copytree(finished.out, tmp_path / "out")
    return Place(tmp_path)


def retry(place: Place, *more: object) -> Ran:
    return command("retry", place.out, "--actors", 1, *more)


@pytest.fixture
def mended(finished: Place) -> Iterator[None]:
    """The rows name the first folder's images: put them right, and back again."""
    finished.mend(*ERRORS[:-1])
    yield
    for number in BROKEN:
        finished.image(number).write_bytes(b"no image")
    for number in GONE:
        finished.image(number).unlink(missing_ok=True)


def test_retry__replaces_error_rows_and_no_others(place: Place, mended: None) -> None:
    before = rows_of(place.out)
    stamps = {name: (place.out / "images" / name).stat().st_mtime_ns for name in names(PER_FILE)}
    ran = retry(place)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[-1] == (
        "7 error rows tried again: 6 are ok now, 1 failed again (not_an_image 1)"
    )
    after = rows_of(place.out)
    for old, new in zip(before, after, strict=True):
        if old["image_id"] in ERRORS[:-1]:
            assert (new["status"], new["uri"]) == ("ok", old["uri"])
        else:
            assert new == old
    report = proof(place.out)
    assert (report.rows, report.ok) == (IMAGES, IMAGES - 1)
    assert place.parts() == names(PER_FILE)
    untouched = names(PER_FILE)[3]  # rows 24 to 31 were all ok
    assert (place.out / "images" / untouched).stat().st_mtime_ns == stamps[untouched]
    record = place.record()
    assert record["counts"] == {"images": IMAGES, "ok": IMAGES - 1, "errors": {"not_an_image": 1}}
    assert record["summary"]["ok"] == IMAGES - 1
    (entry,) = record["retries"]
    assert (entry["tried"], entry["mended"], entry["limits"]) == (7, 6, {})
    assert not (place.out / RETRY).exists()
    assert "finished before" in place_of_first(place).out


def place_of_first(place: Place) -> Ran:
    """The command of the run, whose input is where the first folder is."""
    record = place.record()
    return segment(
        *("--input", record["config"]["input"], "--output", place.out, *ARGUMENTS),
        *("--checkpoint", record["config"]["checkpoint"]),
    )


def test_retry__of_one_kind(place: Place, mended: None) -> None:
    ran = retry(place, "--kind", "missing")
    assert ran.status == 0, ran.err
    assert "2 error rows tried again: 2 are ok now, 0 failed again" in ran.out
    assert place.errors() == list(BROKEN)
    ran = retry(place, "--kind", "missing,crashed")
    assert ran.status == 2
    assert ran.err.strip().endswith(
        "--kind missing,crashed: the run has no such error rows; it has not_an_image 5"
    )


def test_retry__changed_limits_are_told(place: Place, mended: None) -> None:
    ran = retry(place, "--max-pixels", 10)
    assert ran.status == 1, ran.err
    assert "0 are ok now, 7 failed again (not_an_image 1, too_large 6)" in ran.out
    assert proof(place.out).ok == IMAGES - len(ERRORS)
    (entry,) = place.record()["retries"]
    assert entry["limits"] == {"max_pixels": {"was": 100_000_000, "is": 10}}
    assert place.record()["config"]["max_pixels"] == 100_000_000
    assert retry(place).status == 0
    assert place.errors() == ERRORS[-1:]
    assert len(place.record()["retries"]) == 2


def test_retry__of_an_accelerator_that_is_not_there(place: Place) -> None:
    ran = retry(place, "--accelerator-type", "H100")
    assert ran.status == 2
    assert "no node of the cluster has an accelerator of type 'H100', and no autoscaler" in ran.err
    assert place.errors() == ERRORS


def test_retry__of_another_model(place: Place) -> None:
    other = save_model(place.folder / "other.safetensors", seed=1)
    ran = retry(place, "--checkpoint", other)
    assert ran.status == 2
    assert f"{place.out} was made with another model: model weights was " in ran.err
    assert "Give the one of the run, with --checkpoint FILE where it has moved" in ran.err
    assert place.errors() == ERRORS


def test_retry__of_images_whose_folder_is_gone(place: Place, finished: Place) -> None:
    """To a first run this is a node without the mount; here they are rows that fail again."""
    folder = finished.folder / "in"
    folder.rename(finished.folder / "away")
    try:
        ran = retry(place)
    finally:
        (finished.folder / "away").rename(folder)
    assert ran.status == 1, ran.err
    assert "7 error rows tried again: 0 are ok now, 7 failed again (missing 7)" in ran.out


@pytest.mark.parametrize("files", [0, 1, 3])
def test_retry__stopped_while_files_are_replaced(
    place: Place, mended: None, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(dinoidd.upkeep.retry, "run_tasks", stopped_after(files))
        with pytest.raises(Killed):
            retry(place)
    assert (place.out / RETRY / RETRY_STATE).exists()
    proof(place.out)  # some rows are new, each is there once
    for refused in (command("compact", place.out), retry(place, "--kind", "missing")):
        assert refused.status == 2
        assert "is in the middle of" in refused.err
    place.leave_half_a_file()
    ran = retry(place)
    assert ran.status == 0, ran.err
    assert place.parts() == names(PER_FILE)
    assert "going on with the retry" in ran.err
    assert proof(place.out).ok == IMAGES - 1
    assert not (place.out / RETRY).exists()
    assert len(place.record()["retries"]) == 1


def stopped_after(files: int) -> Any:
    """`run_tasks` in this process, whose death comes after some calls."""

    def run_tasks(function: Any, calls: Any) -> None:
        for number, arguments in enumerate(calls):
            if number == files:
                raise Killed
            function(**arguments)
        raise Killed

    return run_tasks


def test_retry__nothing_to_do(place: Place, mended: None) -> None:
    retry(place)
    ran = retry(place, "--kind", "not_an_image")
    assert "1 error rows tried again: 0 are ok now, 1 failed again (not_an_image 1)" in ran.out
    assert ran.status == 1
    assert retry(place, "--kind", "missing").status == 2


def test_retry__unfinished_run(place: Place) -> None:
    (place.out / "_SUCCESS").unlink()
    for ran in (retry(place), command("compact", place.out)):
        assert ran.status == 2
        assert f"the run in {place.out} is not finished (no _SUCCESS)" in ran.err
        assert "run its `dinoidd segment` command again first" in ran.err


def test_retry__no_run(tmp_path: Path) -> None:
    for name in ("retry", "compact"):
        ran = command(name, tmp_path)
        assert ran.status == 2
        assert f"there is no run in {tmp_path}: give the folder that was --output" in ran.err


def size_of_two(place: Place) -> str:
    sizes = [p.stat().st_size for p in (place.out / "images").iterdir()]
    return f"{2 * sum(sizes) // len(sizes)}B"


def test_compact__same_rows_in_fewer_files(place: Place) -> None:
    before, record = rows_of(place.out), place.record()
    ran = command("compact", place.out, "--file-size", size_of_two(place))
    assert ran.status == 0, ran.err
    assert f"{place.out}: 5 files are 3 now, of " in ran.out
    assert place.parts() == names(2 * PER_FILE)
    assert rows_of(place.out) == before
    assert proof(place.out).rows == IMAGES
    after = place.record()
    for name in ("counts", "run_id", "identity", "sessions"):
        assert after[name] == record[name]
    same = ("images", "ok", "errors", "bytes_read", "stage_seconds", "largest_classes")
    assert {n: after["summary"][n] for n in same} == {n: record["summary"][n] for n in same}
    assert after["layout"]["rows_per_file"] == 2 * PER_FILE
    assert [entry["files"] for entry in after["compactions"]] == [3]
    assert not (place.out / COMPACTION).exists()
    assert "finished before" in place_of_first(place).out
    again = command("compact", place.out, "--file-size", size_of_two(place)[:-2] + "B")
    assert again.out.strip().endswith("nothing to do")


def test_compact__then_retry(place: Place, mended: None) -> None:
    assert command("compact", place.out).status == 0
    assert place.parts() == names(IMAGES)
    assert retry(place).status == 0
    assert place.errors() == ERRORS[-1:]
    assert proof(place.out).ok == IMAGES - 1


@pytest.mark.parametrize("files", [0, 1, 2])
def test_compact__stopped_in_the_middle(
    place: Place, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    before, size = rows_of(place.out), size_of_two(place)
    with monkeypatch.context() as patched:
        patched.setattr(dinoidd.upkeep.compact, "run_tasks", stopped_after(files))
        with pytest.raises(Killed):
            command("compact", place.out, "--file-size", size)
    assert not (place.out / "_SUCCESS").exists()
    check_half_compacted(place)
    place.leave_half_a_file()
    ran = command("compact", place.out)  # goes on with the size that it began with
    assert ran.status == 0, ran.err
    assert "finishing the compaction that was begun" in ran.err
    assert place.parts() == names(2 * PER_FILE)
    assert rows_of(place.out) == before
    proof(place.out)
    assert len(place.record()["compactions"]) == 1


def test_compact__stopped_before_small_files_are_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row of the first large file stands twice."""
    kept = {p.name: p.read_bytes() for p in (place.out / "images").iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(dinoidd.upkeep.compact, "run_tasks", stopped_after(1))
        with pytest.raises(Killed):
            command("compact", place.out, "--file-size", size_of_two(place))
    for name, content in kept.items():
        (place.out / "images" / name).write_bytes(content)
    assert len(place.parts()) == 6
    check_half_compacted(place)
    assert command("compact", place.out).status == 0
    assert place.parts() == names(2 * PER_FILE)
    proof(place.out)


def check_half_compacted(place: Place) -> None:
    """Everybody says so, and our readers see each row once even then."""
    words = "is in the middle of a compaction, in which rows stand in two files for a while"
    for refused in (place_of_first(place), retry(place)):
        assert refused.status == 2
        assert words in refused.err
    seen = command("verify", place.out, "--all")
    assert seen.status == 1
    assert "NOT verified: 1 difference\n" in seen.out
    assert words in seen.out
    asked = command("query", place.out, "SELECT count(*) n FROM images", "--format", "csv")
    assert asked.out.split() == ["n", str(IMAGES)]
    assert words in asked.err


@pytest.mark.parametrize("moment", ["journal", "end"])
def test_compact__stopped_beside_the_mark(
    place: Place, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The journal and _SUCCESS are both there: before the first step, and before the last."""

    def killed(*_: object) -> None:
        raise Killed

    remove = dinoidd.upkeep.compact.Store.remove
    name = "_SUCCESS" if moment == "journal" else COMPACTION

    def stop(store: Any, removed: str) -> None:
        if removed == name:
            raise Killed
        remove(store, removed)

    with monkeypatch.context() as patched:
        patched.setattr(dinoidd.upkeep.compact.Store, "remove", stop)
        with pytest.raises(Killed):
            command("compact", place.out, "--file-size", size_of_two(place))
    assert (place.out / "_SUCCESS").exists()
    proof(place.out)
    assert command("compact", place.out).status == 0
    assert place.parts() == names(2 * PER_FILE)
    proof(place.out)
    assert len(place.record()["compactions"]) == 1
