"""The whole job on a real local Ray: `dinoidd segment` from a folder to Parquet, and back to it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from images import BROKEN, GONE, GOOD, MAX_BYTES, MAX_PIXELS, SAMPLES, write_plain, write_samples
from segment_runs import (
    TABLE,
    Ran,
    check_mask,
    contrasting_model,
    embedded_ray,
    forbid_work,
    proof,
    rows_of,
    save_model,
    segment,
)

from dinoidd.data.image import decode_image
from dinoidd.data.manifest import FOLDER, read_rows
from dinoidd.inference.predictor import Predictor
from dinoidd.segment.layout import Layout
from dinoidd.segment.progress import Progress
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

PLAIN = 14
IMAGES = len(SAMPLES) + PLAIN
LIMITS = ["--max-pixels", str(MAX_PIXELS), "--max-bytes", str(MAX_BYTES)]
SMALL_PIECES = ["--batch-size", "4", "--rows-per-chunk", "4", "--rows-per-file", "8"]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_work(monkeypatch)


@dataclass(frozen=True)
class Run:
    """A finished run of all samples and some plain images."""

    folder: Path
    ran: Ran

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def arguments(self) -> list[object]:
        return arguments_of(self.folder)

    def stamps(self) -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in self.out.rglob("*") if p.is_file()}


def arguments_of(folder: Path) -> list[object]:
    where = ["--input", folder / "in" / "list.txt", "--output", folder / "out"]
    return [*where, "--checkpoint", folder / "model.safetensors", *SMALL_PIECES, *LIMITS]


def make_input(folder: Path) -> None:
    """The samples, and more plain images behind them."""
    listed = write_samples(folder / "in")
    write_plain(folder / "in", PLAIN)
    with listed.open("a") as more:
        more.writelines(f"{i:04d}.png\n" for i in range(PLAIN))
    save_model(folder / "model.safetensors")


@pytest.fixture(scope="session")
def run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("job")
    make_input(folder)
    return Run(folder, segment(*arguments_of(folder)))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """The finished output, to be changed."""
    return Path(shutil.copytree(run.out, tmp_path / "out"))


def test_segment__every_image_has_its_row(run: Run) -> None:
    assert run.ran.status == 0
    rows = rows_of(run.out)
    assert [row["image_id"] for row in rows] == list(range(IMAGES))
    for name, row in zip([*SAMPLES, *[None] * PLAIN], rows, strict=True):
        if name in BROKEN or name == GONE:
            assert (row["status"], row["error_kind"]) == ("error", SAMPLES[name].kind), name
        else:
            assert row["status"] == "ok", (name, row["error"])
            check_mask(row, TABLE.fields)
    report = proof(run.out)
    assert (report.images, report.ok) == (IMAGES, len(GOOD) + PLAIN)


def test_segment__files_and_record(run: Run) -> None:
    images = sorted(p.name for p in (run.out / "images").iterdir())
    layout = Layout(rows=IMAGES, rows_per_chunk=4, rows_per_file=8)
    assert images == [layout.file_name(f) for f in range(layout.files)]
    assert sorted(p.name for p in run.out.iterdir()) == [
        "_SUCCESS",
        "images",
        "manifest",
        "run.json",
    ]
    record = json.loads((run.out / "run.json").read_text())
    assert (run.out / "_SUCCESS").read_text().strip() == record["run_id"]
    assert record["counts"]["images"] == IMAGES
    assert record["counts"]["ok"] == len(GOOD) + PLAIN
    assert sum(record["counts"]["errors"].values()) == len(BROKEN) + 1
    assert record["summary"]["session"]["images"] == IMAGES
    assert record["summary"]["bytes_written"] == sum(
        p.stat().st_size for p in (run.out / "images").iterdir()
    )
    assert record["finished"] is not None
    assert set(record["classes"]) == {"name", "ignore_index", "classes"}


def test_segment__says_what_it_did(run: Run) -> None:
    assert f"images   {IMAGES} ({len(GOOD) + PLAIN} ok, {len(BROKEN) + 1} errors)" in run.ran.out
    assert "errors   " in run.ran.out
    assert "too_large 2" in run.ran.out
    assert "sky  " in run.ran.out
    assert "random" not in run.ran.out, "the weights are a checkpoint's"
    assert f"{IMAGES} images" in run.ran.err, "the listing"
    assert "Traceback" not in run.ran.err
    assert "ray" not in run.ran.err.lower().replace(str(run.folder), "")


def test_segment__masks_are_those_of_the_model(run: Run) -> None:
    predictor = Predictor(contrasting_model())
    rows = dict(zip(SAMPLES, rows_of(run.out), strict=False))
    for name in ("plain.jpg", "turned.jpg", "cmyk.jpg", "deep.png", "ribbon.png", "dot.png"):
        row = rows[name]
        image = decode_image((run.folder / "in" / name).read_bytes(), max_pixels=MAX_PIXELS)
        (expected,) = predictor.predict(image.resized((64, 64))[None], [image.size])
        assert np.mean(check_mask(row, TABLE.fields) == expected.classes) > 0.995, name
        assert row["confidence"] == pytest.approx(expected.certainty.confidence, abs=1e-4)


def test_segment__again_does_nothing(run: Run, no_work: None) -> None:
    before = run.stamps()
    again = segment(*run.arguments)
    assert again.status == 0
    assert f"{run.out} was finished before: nothing to do" in again.out
    assert f"images   {IMAGES}" in again.out
    assert run.stamps() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--image-size", 96], ["image size was 64 and is 96"]),
        (["--max-pixels", 7], ["max pixels was 100000 and is 7"]),
        (["--dtype", "bfloat16"], ["dtype was 'float32' and is 'bfloat16'"]),
        (["--input", "in"], ["was indexed from", "list.txt, not from"]),
        (["--checkpoint", "other.safetensors"], ["model weights was"]),
        (["--checkpoint", None, "--preset", "tiny"], ["model was 'small-test' and is 'tiny'"]),
    ],
)
def test_segment__another_run_is_refused(
    run: Run, no_work: None, change: list[object], words: list[str]
) -> None:
    if "other.safetensors" in change:
        save_model(run.folder / "other.safetensors", seed=3)
    arguments = changed(run.arguments, change, run.folder)
    before = run.stamps()
    refused = segment(*arguments)
    assert refused.status == 2
    assert refused.err.startswith("dinoidd segment: ")
    assert refused.err.count("\n") == 1
    for word in [*words, "--restart"]:
        assert word in refused.err
    assert run.stamps() == before


def changed(arguments: list[object], change: list[object], folder: Path) -> list[object]:
    """The arguments with options replaced, dropped (None) or added; files are those of `folder`."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    for option, value in zip(change[::2], change[1::2], strict=True):
        options[option] = (
            folder / value if option in ("--input", "--checkpoint") and value else value
        )
    return [x for pair in options.items() if pair[1] is not None for x in pair]


def test_segment__too_many_errors_end_with_1(run: Run, no_work: None) -> None:
    ran = segment(*run.arguments, "--max-error-rate", 0.1)
    assert ran.status == 1
    assert "of the images are error rows, more than --max-error-rate 10.0%" in ran.err
    assert segment(*run.arguments, "--max-error-rate", 0.5).status == 0


def test_segment__restart_begins_again(run: Run, copy: Path) -> None:
    before = json.loads((copy / "run.json").read_text())
    arguments = changed(run.arguments, ["--image-size", 96], run.folder)
    ran = segment(*arguments, "--output", copy, "--restart")
    assert ran.status == 0
    after = json.loads((copy / "run.json").read_text())
    assert after["run_id"] != before["run_id"]
    assert after["identity"]["image size"] == 96
    assert proof(copy).images == IMAGES


def test_segment__finishes_a_run_that_lost_its_end(run: Run, copy: Path) -> None:
    """All rows are there: only the record and the mark are to be written."""
    (copy / "_SUCCESS").unlink()
    ran = segment(*run.arguments, "--output", copy)
    assert ran.status == 0
    assert f"resuming: {IMAGES} of {IMAGES} images are done" in ran.err
    assert rows_of(copy) == rows_of(run.out)
    assert proof(copy).images == IMAGES


def test_segment__resumes_with_what_is_missing(run: Run, copy: Path, tmp_path: Path) -> None:
    """A lost file is made again, and no other is touched."""
    (copy / "_SUCCESS").unlink()
    lost = sorted((copy / "images").iterdir())[3]
    lost.unlink()
    kept = {p: p.stat().st_mtime_ns for p in (copy / "images").iterdir()}
    ran = segment(*run.arguments, "--output", copy)
    assert ran.status == 0
    assert f"resuming: {IMAGES - 8} of {IMAGES} images are done" in ran.err
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert rows_of(copy) == rows_of(run.out)
    assert proof(copy).images == IMAGES
    record = json.loads((copy / "run.json").read_text())
    assert record["summary"]["session"]["images"] == 8
    assert [s["images"] for s in record["sessions"]] == [IMAGES, 8]


def test_segment__interrupted_and_resumed(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is not fetched again: its sources are gone in the second session."""
    make_input(tmp_path)
    stop_after(3, monkeypatch)
    ran = segment(*arguments_of(tmp_path))
    assert ran.status == 70
    assert "ended by an unexpected InterruptedRunError, told above" in ran.err
    monkeypatch.undo()
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    done = done_ids(tmp_path / "out")
    assert 12 <= len(done) < IMAGES
    (unfinished,) = json.loads((tmp_path / "out" / "run.json").read_text())["sessions"]
    assert unfinished["unfinished"]
    assert 12 <= unfinished["images"] <= len(done)
    uris = read_rows(Store.open(str(tmp_path / "out" / FOLDER)), 0, IMAGES)["uri"].to_pylist()
    for image_id in done:
        Path(uris[image_id]).unlink(missing_ok=True)
    ran = segment(*arguments_of(tmp_path))
    assert ran.status == 0
    assert "resuming: " in ran.err
    rows = rows_of(tmp_path / "out")
    missing = [row["uri"] for row in rows if row["error_kind"] == "missing"]
    assert missing == [str(tmp_path / "in" / GONE)]
    assert proof(tmp_path / "out").ok == len(GOOD) + PLAIN
    first, last = json.loads((tmp_path / "out" / "run.json").read_text())["sessions"]
    assert first == unfinished
    assert last["images"] == IMAGES - last["rows_before"] == IMAGES - len(done)


class InterruptedRunError(Exception):
    """Stands for whatever ends a driver."""


def stop_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Progress.add
    left = iter(range(chunks))

    def counted(self: Progress, tally: Tally) -> None:
        if next(left, None) is None:
            raise InterruptedRunError
        add(self, tally)

    monkeypatch.setattr(Progress, "add", counted)


def done_ids(out: Path) -> list[int]:
    """Rows that staging and images hold, told by the names of the files."""
    files = [*(out / "_staging").glob("*/chunk-*"), *(out / "images").glob("part-*")]
    ranges = [map(int, p.stem.split("-")[1:]) for p in files]
    return sorted({i for start, stop in ranges for i in range(start, stop)})


def test_segment__relative_paths(run: Run, tmp_path: Path) -> None:
    """Ray's workers may have another working directory than the command."""
    save_model(tmp_path / "here.safetensors")
    write_plain(tmp_path / "in", 1)
    with contextlib.chdir(tmp_path):
        ran = segment(
            "--input", "in/0000.png", "--output", "out", "--checkpoint", "here.safetensors"
        )
    assert ran.status == 0, ran.err
    (row,) = rows_of(tmp_path / "out")
    assert (row["uri"], row["status"]) == (f"{tmp_path}/in/0000.png", "ok")


def test_start__more_actors_than_fit(run: Run, tmp_path: Path) -> None:
    write_plain(tmp_path / "in", 2)
    ran = segment(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--actors", 1000),
        *("--checkpoint", run.folder / "model.safetensors"),
    )
    assert ran.status == 2
    assert "1000 model actors need 1000.75 CPUs (it has " in ran.err
    assert "lower --actors" in ran.err
    assert not (tmp_path / "out" / "run.json").exists()
