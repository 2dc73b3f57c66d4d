"""Label images as arrays of raw values: grey and palette PNGs as they are, colours as RGB."""

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable
from dinoidd.errors import ImageError

_PLAIN = {"L", "P"}  # one byte a pixel
_COLOR = {"RGB", "RGBA"}
MAX_LABEL_PIXELS = 1 << 28


def read_label(source: bytes | BinaryIO, table: ClassTable | None = None) -> np.ndarray:
    """The raw values of a label image: uint8 [H, W], or uint8 [H, W, 3] for a colour image.

    Args:
        table: where it knows raw colours alone, a palette image is read as colours.

    Raises:
        ImageError: not an image, cut off, or of another kind (16 bit, floats).
    """
    colors_only = (
        table is not None and bool(table.raw_values.colors) and not table.raw_values.values
    )
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_LABEL_PIXELS:
                raise ImageError("too_large", f"has {image.width}x{image.height} pixels")
            return _pixels(image, colors_only)
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError("corrupt", f"cannot be read as an image: {error}") from error


def _pixels(image: Image.Image, colors_only: bool) -> np.ndarray:
    if image.mode in _PLAIN and not (image.mode == "P" and colors_only):
        return np.asarray(image)
    if image.mode in _COLOR or image.mode == "P":
        return np.asarray(image.convert("RGB"))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    raw = np.asarray(image)
    if image.mode.startswith("I") and raw.size and raw.min() >= 0 and raw.max() <= 255:
        return raw.astype(np.uint8)
    raise ImageError("unsupported", f"has pixels of the kind {image.mode}: 8-bit values are needed")


def count_values(raw: np.ndarray) -> dict[int, int]:
    """Pixels of each raw value; of a colour image, of red << 16 | green << 8 | blue."""
    if raw.ndim == 2:
        histogram = Image.fromarray(raw).histogram()  # six times as fast as np.bincount
        return {value: count for value, count in enumerate(histogram) if count}
    red, green, blue = (raw[..., i].astype(np.uint32) for i in range(3))
    found, numbers = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))
