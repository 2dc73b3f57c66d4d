"""What a model loses by computing in fewer bits, on real images: pixels whose class is another one."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from dinoidd.ahead import batches
from dinoidd.bench.machine import hardware
from dinoidd.errors import ImageError
from dinoidd.inference.source import ModelSource
from dinoidd.prediction.inputs import InputImage
from dinoidd.segmenter import Segmenter

EXACT = "float32"  # what the others are held against


@dataclass(frozen=True, kw_only=True)
class DtypeResult:
    """One dtype over the same images."""

    dtype: str
    changed: float  # share of pixels of another class than in float32
    worst_image: float  # the largest share of an image
    images_per_second: float  # from decoded images to classes, without the first batch


@dataclass(frozen=True, kw_only=True)
class DtypeComparison:
    """All of them, float32 first."""

    model: str
    hardware: str
    images: int
    trained: bool  # classes of random weights tie where those of trained ones do not
    results: list[DtypeResult]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_dtypes(
    source: ModelSource, uris: Sequence[str], dtypes: Sequence[str], device: str, batch_size: int
) -> DtypeComparison:
    """Segment the images in float32 and in each dtype.

    Raises:
        StorageError, ImageError: an image cannot be read.
        ConfigError: the device cannot compute in a dtype.
    """
    described = source.describe()
    for dtype in dtypes:  # told now, not after the others
        replace(source, dtype=dtype).settled(device)
    exact: list[np.ndarray] = []
    images: list[InputImage] = []
    results = []
    for dtype in (EXACT, *dtypes):
        segmenter = Segmenter(replace(source, dtype=dtype), device=device, batch_size=batch_size)
        images = images or [segmenter.read(uri) for uri in uris]
        classes, rate = _segmented(segmenter, images)
        where = hardware(torch.device(segmenter.device))
        del segmenter  # before the next one is loaded: two of 7B are many
        exact = exact or classes
        shares = [float((a != b).mean()) for a, b in zip(classes, exact, strict=True)]
        pixels = [a.size for a in classes]
        results.append(
            DtypeResult(
                dtype=dtype,
                changed=float(np.average(shares, weights=pixels)),
                worst_image=max(shares),
                images_per_second=rate,
            )
        )
    return DtypeComparison(
        model=described.config.name,
        hardware=where,
        images=len(uris),
        trained=described.trained,
        results=results,
    )


def _segmented(segmenter: Segmenter, images: list[InputImage]) -> tuple[list[np.ndarray], float]:
    """Class ids of each image, and images/s once the model is warm."""
    segmenter.segment(images[: segmenter.batch_size])
    began, classes = time.perf_counter(), []
    for batch in batches(images, segmenter.batch_size):
        for result in segmenter.segment(batch):
            if isinstance(result, ImageError):
                raise result
            classes.append(result.classes)
    return classes, len(images) / (time.perf_counter() - began)


def format_dtypes(comparison: DtypeComparison) -> str:
    """A table for people."""
    lines = [
        f"{comparison.model}, {comparison.images} images, {comparison.hardware}"
        + ("" if comparison.trained else "; random weights: their classes mean nothing"),
        "  dtype       images/s   other class than float32 (worst image)",
    ]
    for r in comparison.results:
        lines.append(
            f"  {r.dtype:10s} {r.images_per_second:9.3g}   {r.changed:.3%} ({r.worst_image:.2%})"
        )
    return "\n".join(lines)
