"""A small model in a file, and finished runs to be looked at, for the tests of the segmentation job."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
import ray
from small_models import SMALL, drawn_model

from dinoidd.checkpoint.file import save_checkpoint
from dinoidd.classes import ClassInfo, ClassTable
from dinoidd.cli import main
from dinoidd.inference.source import ModelSource
from dinoidd.models import Segmenter
from dinoidd.output.mask import count_pixels, decode_mask
from dinoidd.output.reader import RunReader
from dinoidd.output.verify import Report, verify
from dinoidd.segment import cluster, job
from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions, Store

TABLE = ClassTable(
    name="five",
    classes=tuple(
        ClassInfo(name=name, color=(40 * i, 10, 200 - 40 * i))
        for i, name in enumerate(["road", "traffic light", "sky", "obs-str-bar-fallback", "car"])
    ),
)
Row = dict[str, Any]


def contrasting_model(seed: int = 0) -> Segmenter:
    """A small model whose masks have several classes: its queries differ, its masks have edges."""
    model = drawn_model(SMALL, seed)
    for name, tensor in model.query_decoder.state_dict().items():
        if name in ("query_feat.weight", "query_embed.weight"):
            tensor.mul_(5)
        elif name.startswith("mask") and name.endswith("weight"):
            tensor.mul_(30)
        elif name == "classifier.weight":
            tensor.mul_(4)
        elif name == "classifier.bias":
            tensor.zero_()
    return model


def save_model(path: Path, seed: int = 0) -> Path:
    """A checkpoint of that model."""
    save_checkpoint(contrasting_model(seed), TABLE, path)
    return path


def rows_of(output: str | Path, options: StorageOptions = DEFAULT_OPTIONS) -> list[Row]:
    """All rows of a run, by image_id."""
    filesystem, path = Store.open(str(output), options).child("images").arrow_path()
    table = ds.dataset(path, filesystem=filesystem, format="parquet").to_table()
    return table.sort_by("image_id").to_pylist()


def proof(output: str | Path, options: StorageOptions = DEFAULT_OPTIONS) -> Report:
    """What `dinoidd verify --all` finds out."""
    report = verify(RunReader(str(output), options), sample=None)
    assert report.findings.total == 0, list(report.findings.sentences())
    return report


def check_mask(row: Row, fields: list[str]) -> np.ndarray:
    """The mask of an `ok` row, after a look at whether the row agrees with it."""
    mask = decode_mask(row["mask"]["bytes"])
    assert mask.shape == (row["height"], row["width"])
    assert list(row["pixels"]) == list(row["fraction"]) == fields
    assert list(row["pixels"].values()) == count_pixels(mask, len(fields))
    assert sum(row["pixels"].values()) == mask.size
    shares = [count / mask.size for count in row["pixels"].values()]
    assert np.allclose(list(row["fraction"].values()), shares, rtol=1e-6)
    for name in ("confidence", "entropy", "margin"):
        assert 0 <= row[name] <= 1
    return mask


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str


def segment(*arguments: object) -> Ran:
    """`dinoidd segment` in this process, so that all tests share one Ray."""
    return command("segment", *arguments)


def command(*arguments: object) -> Ran:
    """A command of dinoidd in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, arguments)))
    return Ran(status, out.getvalue(), err.getvalue())


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Ray nor a model may be needed."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("Ray was started, or a model was loaded")

    monkeypatch.setattr(job.cluster, "connect", fail)
    monkeypatch.setattr(ModelSource, "load", fail)


@contextlib.contextmanager
def embedded_ray() -> Iterator[None]:
    """One Ray for all tests of a session, which start it if they are the first: that takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("RAY_ADDRESS", raising=False)
        cluster.connect()
    yield
    ray.shutdown()
