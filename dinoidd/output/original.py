"""Original images again, small, as they stood when they were segmented."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dinoidd.errors import ImageError
from dinoidd.storage import ObjectReader

MAX_BYTES = 512 << 20
_EXIF_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)  # orientations that swap height and width


def read_original(
    reader: ObjectReader, uri: str, box: tuple[int, int]
) -> tuple[tuple[int, int], Image.Image]:
    """The full (width, height) of an image after EXIF rotation, and the image, fitted into `box`.

    Raises:
        StorageError: the object cannot be read.
        ImageError: it is not an image, or not a whole one.
    """
    data = reader.read(uri, MAX_BYTES)
    try:
        image = Image.open(io.BytesIO(data))
        size = image.size
        if image.getexif().get(_EXIF_ORIENTATION) in _LYING:
            size = size[1], size[0]
        image.draft("RGB", (2 * max(box), 2 * max(box)))  # JPEGs decode smaller, and faster
        upright = _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", f"{uri} ({len(data):,} bytes) is not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError("truncated", f"{uri} cannot be decoded: {error}") from error
    return size, ImageOps.contain(upright, box, Image.Resampling.LANCZOS)


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit colours; 16-bit greys keep their upper 8 bits, where Pillow would clip them."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
