"""A run with sliding windows on a real local Ray: its masks, that it is known again, and its retry."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from images import write_plain
from segment_runs import TABLE, check_mask, command, embedded_ray, proof, rows_of, save_model

from dinoidd.config import Windows
from dinoidd.inference.source import ModelSource
from dinoidd.segmenter import Segmenter

HOW = Windows(size=64, stride=48, short_side=80, scales=(0.8, 1.0), flip=True)
OPTIONS = [
    "--window",
    "64",
    "--stride",
    "48",
    "--short-side",
    "80",
    "--tta",
    "0.8,1",
    "--batch-size",
    "3",
]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


def test_segment__masks_are_those_of_the_segmenter(local_ray: None, tmp_path: Path) -> None:
    images = write_plain(tmp_path / "in", 5)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    model, out = save_model(tmp_path / "model.safetensors"), tmp_path / "out"
    where = ("--input", images, "--output", out, "--checkpoint", model)
    assert command("segment", *where, *OPTIONS).status == 0
    assert proof(out).ok == 5
    segmenter = Segmenter(
        ModelSource(checkpoint=str(model)), device="cpu", windows=HOW, batch_size=1
    )
    for row in rows_of(out):
        if row["status"] == "ok":
            mask, expected = check_mask(row, TABLE.fields), segmenter.predict(row["uri"])
            assert (mask == expected.classes).mean() > 0.99
            assert row["confidence"] == pytest.approx(expected.confidence, abs=1e-3)

    again = command("segment", *where, *OPTIONS)
    assert "was finished before: nothing to do" in again.out
    whole = command("segment", *where)
    assert whole.status == 2
    assert "windows was {'size': 64" in whole.err

    (images / "broken.jpg").write_bytes((images / "0000.png").read_bytes())
    assert command("retry", out, "--actors", 1).status == 0
    (mended,) = (row for row in rows_of(out) if row["uri"].endswith("broken.jpg"))
    expected = segmenter.predict(images / "broken.jpg").classes
    assert np.mean(check_mask(mended, TABLE.fields) == expected) > 0.99
