"""Label images as arrays of raw values: grey and palette PNGs as they are, colours as RGB."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from dinoidd.classes import ClassTable, RawValues
from dinoidd.errors import ImageError

_PLAIN = {"L", "P"}  # one byte a pixel
_COLOR = {"RGB", "RGBA"}
_PNG_END = b"IEND\xaeB`\x82"
MAX_LABEL_PIXELS = 1 << 28
COLOR = 1 << 24  # marks a counted colour, so that none is taken for a raw value


def read_label(data: bytes, table: ClassTable | RawValues | None = None) -> np.ndarray:
    """The raw values of a label image: uint8 [H, W], or uint8 [H, W, 3] for a colour image.

    Args:
        table: where it knows raw colours alone, a palette image is read as colours.

    Raises:
        ImageError: `empty`, `not_an_image`, `truncated`, `corrupt`, `too_large`, or `unsupported`
            (values above 255, floats).
    """
    raw_values = table.raw_values if isinstance(table, ClassTable) else table
    colors_only = raw_values is not None and not raw_values.values
    if not data:
        raise ImageError("empty", "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are wanted
            with Image.open(io.BytesIO(data)) as image:
                _check_whole(image, data)
                return _pixels(image, colors_only)
    except UnidentifiedImageError as error:
        what = f"cannot be read as an image: {len(data):,} bytes of no known format"
        raise ImageError("not_an_image", what) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError("corrupt", f"cannot be read as an image: {error}") from error


def _check_whole(image: Image.Image, data: bytes) -> None:
    if image.width * image.height > MAX_LABEL_PIXELS:
        raise ImageError("too_large", f"has {image.width}x{image.height} pixels")
    if image.format == "PNG" and _PNG_END not in data[-64:]:  # Pillow may be content without
        what = f"cannot be read as an image: the end of the PNG of {len(data):,} bytes is lost"
        raise ImageError("truncated", what)


def _pixels(image: Image.Image, colors_only: bool) -> np.ndarray:
    if image.mode in _PLAIN and not (image.mode == "P" and colors_only):
        return np.asarray(image)
    if image.mode in _COLOR or image.mode == "P":
        return np.asarray(image.convert("RGB"))
    if image.mode == "1":  # PNG's one-bit white is the 255 of its other depths
        return np.asarray(image.convert("L"))
    raw = np.asarray(image)
    if image.mode.startswith("I") and raw.size and raw.min() >= 0 and raw.max() <= 255:
        return raw.astype(np.uint8)
    raise ImageError("unsupported", f"has pixels of the kind {image.mode}: 8-bit values are needed")


def count_values(raw: np.ndarray) -> dict[int, int]:
    """Pixels of each raw value; of a colour image, of COLOR | red << 16 | green << 8 | blue."""
    if raw.ndim == 2:
        histogram = Image.fromarray(raw).histogram()  # six times as fast as np.bincount
        return {value: count for value, count in enumerate(histogram) if count}
    red, green, blue = (raw[..., i].astype(np.uint32) for i in range(3))
    found, numbers = np.unique(COLOR | red << 16 | green << 8 | blue, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))
