"""Small pictures of images and of their masks, as data URIs."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dinoidd.errors import ImageError, StorageError
from dinoidd.exports.selection import read_rows
from dinoidd.exports.threads import map_in_threads
from dinoidd.output.mask import open_mask
from dinoidd.output.original import read_original
from dinoidd.output.reader import RunReader
from dinoidd.storage import ObjectReader

BOX = (360, 270)  # pixels, around a picture
_QUALITY = 70  # of WebP
_THREADS = 8
_COLUMNS = ("uri", "height", "width", "mask", "confidence")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image (None: it cannot be read, `problem` says why) and its mask, to be laid over it."""

    uri: str
    size: tuple[int, int]  # width, height in the page
    image: str | None
    mask: str | None
    problem: str | None
    confidence: float | None
    shares: Sequence[float]  # by class, 0..1

    @property
    def bytes(self) -> int:
        """What it adds to a page."""
        return len(self.image or "") + len(self.mask or "")


def load_pictures(run: RunReader, ids: Iterable[int]) -> Iterator[tuple[int, Picture]]:
    """The pictures of these images, by image_id; the row groups that hold them are read, no others."""
    reader, classes = ObjectReader(run.options), len(run.table)
    wanted = np.array(sorted(set(ids)), np.int64)

    def load(row: dict[str, Any]) -> tuple[int, Picture]:
        return row["image_id"], _picture(reader, row, classes)

    yield from map_in_threads(load, read_rows(run, wanted, _COLUMNS), _THREADS)


def _picture(reader: ObjectReader, row: dict[str, Any], classes: int) -> Picture:
    size, image, problem = _fitted((row["width"], row["height"])), None, None
    try:
        full_size, found = read_original(reader, row["uri"], BOX)
        if full_size == (row["width"], row["height"]):
            size, image = found.size, _data_uri(found, "WEBP", quality=_QUALITY, method=4)
        else:
            problem = f"the image has {full_size[0]}x{full_size[1]} pixels now"
    except (StorageError, ImageError) as error:
        problem = f"{error.kind}: {error}"
    mask, shares = None, [0.0] * classes
    try:
        whole = open_mask((row["mask"] or {}).get("bytes") or b"")
        counts = whole.histogram()[:classes]
        shares = [count / (whole.width * whole.height) for count in counts]
        small = whole.resize(size, Image.Resampling.NEAREST)
        mask = _data_uri(small, "PNG", optimize=True)
    except ImageError as error:
        problem = str(error)
    return Picture(
        uri=row["uri"],
        size=size,
        image=image,
        mask=mask,
        problem=problem,
        confidence=row["confidence"],
        shares=shares,
    )


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    """The size of an image in BOX."""
    scale = min(BOX[0] / size[0], BOX[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _data_uri(image: Image.Image, format: str, **options: Any) -> str:
    data = io.BytesIO()
    image.save(data, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
