"""What can be segmented in Python: a path or URL, bytes, a Pillow image, an array."""

import io
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from dinoidd.data.image import DecodedImage, decode_image
from dinoidd.errors import ImageError
from dinoidd.storage import ObjectReader, normalise, shown

ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray
UNNAMED = "image"
_MAX_BYTES = 1 << 30  # larger files are refused before they are read
_CHANNELS = {(): "L", (1,): "L", (3,): "RGB", (4,): "RGBA"}


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """Upright RGB pixels, and where they come from."""

    name: str  # the last part of its address; "image" where it has none
    uri: str | None  # None: bytes, a Pillow image or an array
    decoded: DecodedImage


def read_image(image: ImageLike, reader: ObjectReader, max_pixels: int) -> InputImage:
    """Read and decode, exactly as a segmentation run does; EXIF orientation is applied.

    Args:
        image: a path or a URL of any kind that storage knows, the bytes of an image file, a Pillow image
            of any mode, or uint8 [H, W, 3] RGB ([H, W] grey and [H, W, 4] RGBA too).

    Raises:
        StorageError: the file cannot be read.
        ImageError: it is no image, a damaged one, or too large.
    """
    if isinstance(image, str | os.PathLike):
        uri = normalise(os.fspath(image))
        decoded = decode_image(reader.read(uri, _MAX_BYTES), max_pixels=max_pixels)
        name = shown(uri).rpartition("/")[2]
        return InputImage(name=name or UNNAMED, uri=uri, decoded=decoded)
    return InputImage(name=UNNAMED, uri=None, decoded=_in_memory(image, max_pixels))


def _in_memory(image: ImageLike, max_pixels: int) -> DecodedImage:
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), max_pixels=max_pixels)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image, max_pixels)
    raise ImageError(
        "unsupported",
        f"a {type(image).__name__} is no image: give a path or URL, bytes, a Pillow image or an array",
    )


def _from_array(array: np.ndarray) -> DecodedImage:
    mode = _CHANNELS.get(array.shape[2:]) if array.ndim in (2, 3) else None
    if mode is None or array.dtype != np.uint8:
        raise ImageError(
            "unsupported",
            f"an array is uint8 [H, W, 3] in RGB order (or [H, W], [H, W, 4]), "
            f"not {array.dtype} {list(array.shape)}; give a list for several images",
        )
    if not array.size:
        raise ImageError("empty", f"an array of {list(array.shape)} has no pixels")
    height, width = array.shape[:2]
    pixels = np.ascontiguousarray(array)
    image = Image.frombytes(mode, (width, height), pixels.tobytes())
    return DecodedImage(image=image.convert("RGB"), note=None)


def _from_pillow(image: Image.Image, max_pixels: int) -> DecodedImage:
    if not image.width * image.height:
        raise ImageError("empty", f"a Pillow image of {image.size} has no pixels")
    try:
        upright = ImageOps.exif_transpose(image)
        if not upright.mode.startswith(("I", "F")):
            return DecodedImage(image=upright.convert("RGB"), note=None)
        file = io.BytesIO()  # decode_image knows how 16 bits become 8, and refuses floats
        upright.save(file, "TIFF")
    except (OSError, SyntaxError, ValueError) as error:  # it was opened, but not loaded yet
        raise ImageError("corrupt", f"the Pillow image cannot be loaded: {error}") from error
    return decode_image(file.getvalue(), max_pixels=max_pixels)
