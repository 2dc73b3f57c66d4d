"""The file of an original image, unchanged, once it is sure that it is still the image of the mask."""

import io
from dataclasses import dataclass

from PIL import Image

from dinoidd.data.image import DAMAGE, upright_size
from dinoidd.errors import ImageError, StorageError
from dinoidd.storage import ObjectReader, shown

_MAX_BYTES = 512 << 20
_SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "DIB": ".bmp",
}


@dataclass(frozen=True)
class OriginalFile:
    """`suffix` is that of its content, whatever its name says."""

    data: bytes
    suffix: str


def read_original_file(reader: ObjectReader, uri: str, size: tuple[int, int]) -> OriginalFile:
    """The original of a mask of that (width, height).

    Raises:
        StorageError: it cannot be read.
        ImageError: it is no image, or has another size now.
    """
    data = reader.read(uri, _MAX_BYTES)
    try:
        with Image.open(io.BytesIO(data)) as image:  # the header alone
            now = upright_size(image)
            suffix = _SUFFIXES.get(image.format or "")
    except DAMAGE as error:
        raise ImageError("corrupt", f"{shown(uri)} cannot be decoded any more: {error}") from error
    if suffix is None:
        raise ImageError("unsupported", f"{shown(uri)} is a {image.format} file now")
    if now != size:
        was, is_now = f"{size[0]}x{size[1]}", f"{now[0]}x{now[1]}"
        now_has = f"{shown(uri)} had {was} pixels when segmented and has {is_now} now"
        raise ImageError("changed", now_has)
    return OriginalFile(data, suffix)


def try_original_file(reader: ObjectReader, uri: str, size: tuple[int, int]) -> OriginalFile | str:
    """The original, or the short word for why there is none."""
    try:
        return read_original_file(reader, uri, size)
    except (StorageError, ImageError) as error:
        return error.kind
