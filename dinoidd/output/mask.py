"""Masks as 8-bit palette PNGs: a pixel's value is its class id, the palette has the colours."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from dinoidd.classes import ClassTable
from dinoidd.errors import ImageError

# zlib's Z_RLE looks for runs only, and runs are what masks are made of: on 1920x1080 masks of
# streets 5 ms and 36 kB, where level 1 takes 6 ms and 61 kB, and level 6 takes 13 ms and 38 kB.
# With Z_RLE the level makes no difference.
_ZLIB_RLE = 3
_ZLIB_LEVEL = 1
_BIT_DEPTH_AT = 24  # in a PNG: 8 bytes signature, 8 bytes chunk head, 4 bytes width, 4 bytes height
_PNG_END = b"IEND\xaeB`\x82"


def encode_mask(classes_HW: np.ndarray, table: ClassTable) -> bytes:
    """The mask as a PNG.

    Args:
        classes_HW: uint8 class ids, height by width, not empty.
        table: gives the palette.
    """
    image = _as_image(classes_HW)
    image.putpalette(
        table.palette
    )  # 256 colours: Pillow writes fewer than 17 with fewer than 8 bits
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=_ZLIB_LEVEL, compress_type=_ZLIB_RLE)
    return png.getvalue()


def decode_mask(png: bytes) -> np.ndarray:
    """The class ids of `encode_mask`'s PNG: uint8, height by width.

    Raises:
        ImageError: not a whole 8-bit palette PNG.
    """
    return np.asarray(open_mask(png))


def open_mask(png: bytes) -> Image.Image:
    """The PNG as a loaded Pillow image in mode `P`, palette and all.

    Raises:
        ImageError: not a whole 8-bit palette PNG.
    """
    try:
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        image.load()
    except UnidentifiedImageError as error:  # its own words name a Python object, not a reason
        raise ImageError("not_an_image", f"the mask ({len(png)} bytes) is not a PNG") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            "truncated", f"the mask ({len(png)} bytes) is a damaged PNG: {error}"
        ) from error
    if not png.endswith(_PNG_END):  # Pillow is content once it has all pixels, others are not
        raise ImageError(
            "truncated", f"the mask ({len(png)} bytes) is a damaged PNG: its end is lost"
        )
    if image.mode != "P" or png[_BIT_DEPTH_AT] != 8:
        bits = png[_BIT_DEPTH_AT]
        raise ImageError(
            "unsupported", f"the mask is a PNG of mode {image.mode} with {bits} bits, not P, 8"
        )
    return image


def palette_of(image: Image.Image, classes: int) -> list[tuple[int, int, int]]:
    """The first `classes` colours of a mode `P` image."""
    values = (image.getpalette() or [])[: 3 * classes]
    return [(r, g, b) for r, g, b in zip(values[::3], values[1::3], values[2::3], strict=True)]


def count_pixels(classes_HW: np.ndarray, classes: int) -> list[int]:
    """Pixels of every class 0..classes-1.

    Pillow counts 1920x1080 in 3.5 ms, np.bincount (which widens to int64 first) in 7.2 ms.
    """
    counts = _as_image(classes_HW).histogram()
    if any(counts[classes:]):
        raise ValueError(f"class ids up to {int(classes_HW.max())} in a mask of {classes} classes")
    return counts[:classes]


def _as_image(classes_HW: np.ndarray) -> Image.Image:
    if classes_HW.dtype != np.uint8 or classes_HW.ndim != 2 or not classes_HW.size:
        raise ValueError(f"a mask is uint8 HxW, not {classes_HW.dtype} {classes_HW.shape}")
    height, width = classes_HW.shape
    return Image.frombuffer(
        "L", (width, height), np.ascontiguousarray(classes_HW), "raw", "L", 0, 1
    )
