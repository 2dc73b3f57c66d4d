"""Images that kill, hang or break whoever touches them cost themselves and nothing else.

Real Ray, the real stages, the whole command; only what is done with the bytes or pixels of a poison
image is replaced, in the workers' processes.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from image_files import encoded
from images import write_plain
from PIL import Image
from segment_runs import Ran, Row, embedded_ray, proof, rows_of, save_model, segment

from dinoidd.inference.predictor import Prediction
from dinoidd.inference.scorer import make_scorer
from dinoidd.models.semantic import Certainty
from dinoidd.segment import session, standstill, watch
from dinoidd.segment.pipeline import run_chunks
from dinoidd.segment.stages import ReadImages, SegmentImages

pytestmark = pytest.mark.timeout(600)
CHUNK = 10
LIMIT_S = 3
DEATH = "the process ended each of 3 times that it was {} by itself"
LATE = f"within {LIMIT_S} s, in 3 tries by itself: raise --image-timeout"


def end(what: str) -> None:
    """What a poison image does to its process."""
    if what == "exit":
        os._exit(1)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        time.sleep(3600)
    if what == "regex":  # for ever, and without letting any other thread run
        re.match(r"(a+)+$", "a" * 64 + "b")
    if what.startswith("/") and not Path(what).exists():  # once: stands for a kill from outside
        Path(what).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class PoisonedRead(ReadImages):
    """Decoding a file that begins with a line `POISON:what` does that, then what follows the line."""

    def _decode(self, data: bytes) -> dict[str, Any]:
        if data.startswith(b"POISON:"):
            line, _, data = data.partition(b"\n")
            end(line.removeprefix(b"POISON:").decode())
        return super()._decode(data)


class PoisonedModel(SegmentImages):
    """Images of one colour, whose red says which of `poison` they are, do that."""

    def __init__(self, poison: list[str], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._poison = poison
        self._healthy, self._predictor.predict = self._predictor.predict, self._poisoned

    def _poisoned(self, images_BHW3: np.ndarray, sizes: list[Any]) -> list[Prediction]:
        reds = [int(i[0, 0, 0]) if (i == i[0, 0]).all() and i.any() else 0 for i in images_BHW3]
        poison = [self._poison[red - 1] if red else "" for red in reds]
        for what in poison:
            end(what)
            if what == "raise":
                raise ValueError("an odd shape\nand more of it")
            if what == "lost":
                raise RuntimeError("CUDA error: an illegal memory access was encountered\nadvice")
        answers = self._healthy(images_BHW3, sizes)
        nan = Certainty(*[float("nan")] * 3)
        pairs = zip(poison, answers, strict=True)
        return [replace(a, certainty=nan) if what == "nan" else a for what, a in pairs]


class DyingModel(SegmentImages):
    """Loading it never succeeds."""

    def _load(self, *_: Any) -> Any:
        os._exit(1)


class BrokenModel(SegmentImages):
    """It is loaded, and cannot do anything."""

    def _load(self, source: Any, device: str) -> Any:
        model = source.load()
        model.forward = None
        return super()._load(_Loaded(model), device)


class _Loaded:
    def __init__(self, model: Any) -> None:
        self.load = lambda: model
        self.dtype = "float32"
        self.scorer = make_scorer


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    with embedded_ray():
        yield


@pytest.fixture
def job(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Job":
    return Job(tmp_path, monkeypatch)


class Job:
    """A folder of images, of which some are poison, and the command over it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images, self.out = folder / "in", folder / "out"
        self.checkpoint = save_model(folder / "model.safetensors")
        self.poison: list[str] = []  # of the model
        self.log = ""  # of the last run
        self._patch = monkeypatch
        write_plain(self.images, 6 * CHUNK)

    def spoil(self, number: int, decode: str = "", model: str = "") -> None:
        """Make an image poison, for who decodes it or for the model."""
        if model:
            self.poison.append(model)
        line = f"POISON:{decode}\n".encode() if decode else b""
        image = Image.new("RGB", (32, 32), (len(self.poison) if model else 0, 0, 0))
        (self.images / f"{number:04d}.png").write_bytes(line + encoded(image, "PNG"))

    def run(self, model: type = PoisonedModel) -> Ran:
        def poisoned(chunks: Any, *, read: ReadImages, segment: dict[str, Any], **rest: Any) -> Any:
            read = PoisonedRead(**vars(read))
            if model is PoisonedModel:
                segment = segment | {"poison": self.poison}
            return run_chunks(chunks, read=read, segment=segment, model=model, **rest)

        self._patch.setattr(session, "run_chunks", poisoned)
        paths = ["--input", self.images, "--output", self.out, "--checkpoint", self.checkpoint]
        sizes = ["--image-size", 64, "--batch-size", 5, "--rows-per-chunk", CHUNK]
        return segment(*paths, *sizes, "--image-timeout", LIMIT_S)

    def errors(self) -> dict[int, tuple[str, str]]:
        """Of a run that ended well: the rows that are no `ok`."""
        ran = self.run()
        assert ran.status == 0, ran.err
        self.log = ran.err
        report = proof(self.out)
        assert report.images == report.rows == 6 * CHUNK
        rows = [r for r in rows_of(self.out) if r["status"] != "ok"]
        assert report.ok == 6 * CHUNK - len(rows)
        return {number_of(row): (row["error_kind"], row["error"]) for row in rows}


def number_of(row: Row) -> int:
    return int(Path(row["uri"]).stem)


def test_poison__costs_itself_alone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "PATIENCE_S", 1.0)
    monkeypatch.setattr(watch, "POLL_S", 0.1)
    job.spoil(3, decode="exit")
    job.spoil(17, decode="sleep")
    job.spoil(28, model="raise")
    job.spoil(31, model="nan")
    job.spoil(45, model="exit")
    errors = job.errors()
    assert errors.keys() == {3, 17, 28, 31, 45}
    assert errors[3][0] == "crashed"
    assert DEATH.format("decoded") in errors[3][1]
    assert errors[17] == ("timeout", f"it was not decoded {LATE} if it only takes long")
    told = "alone in its batch, the model raised ValueError: an odd shape"
    assert errors[28] == ("crashed", told)
    assert errors[31][0] == "not_finite"
    assert errors[45][0] == "crashed"
    assert DEATH.format("segmented") in errors[45][1]
    hung = r"nothing has got through the stage `read` for \ds: [1-9] pieces of work are in it"
    assert re.search(hung, job.log)


@pytest.mark.slow
def test_poison__of_all_kinds_at_once(job: Job) -> None:
    decode = {0: "kill", 1: "exit", 9: "sleep", 12: "regex", 25: "kill"}
    model = {26: "sleep", 41: "raise", 49: "nan", 52: "lost", 53: "kill"}
    for number, what in decode.items():
        job.spoil(number, decode=what)
    for number, what in model.items():
        job.spoil(number, model=what)
    errors = job.errors()
    assert errors.keys() == decode.keys() | model.keys()
    for number, what in (decode | model).items():
        kind = {"sleep": "timeout", "regex": "timeout", "nan": "not_finite"}.get(what, "crashed")
        assert errors[number][0] == kind, (what, errors[number])
        if kind == "timeout":
            assert LATE in errors[number][1]
    reason = DEATH.format("segmented") + ": RuntimeError: CUDA error: an illegal memory access"
    assert errors[52][1] == f"{reason} was encountered"


def test_killed_process__costs_no_image(job: Job, tmp_path: Path) -> None:
    job.spoil(14, decode=str(tmp_path / "reader"))
    job.spoil(33, model=str(tmp_path / "actor"))
    assert job.errors() == {}
    assert (tmp_path / "reader").exists()
    assert (tmp_path / "actor").exists()


@pytest.mark.slow
def test_model__that_dies_while_it_is_loaded_ends_the_run(job: Job) -> None:
    ran = job.run(DyingModel)
    assert ran.status == 2
    assert "loading the model ended its process 5 times in a row" in ran.err
    assert ran.err.strip().splitlines()[-1].endswith("run the same command again to resume")
    assert "Traceback" not in ran.err


def test_model__that_cannot_segment_a_blank_image_ends_the_run(job: Job) -> None:
    ran = job.run(BrokenModel)
    assert ran.status == 2
    told = "the model cannot segment a blank image of 64 x 64 pixels on cpu: TypeError: 'NoneType'"
    assert told in ran.err
    assert "Traceback" not in ran.err
