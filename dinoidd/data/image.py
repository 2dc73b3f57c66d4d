"""Bytes of an image file into RGB pixels, with a reason where that cannot be."""

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from dinoidd.errors import ImageError

FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB"}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = (5, 6, 7, 8)  # orientations that swap width and height
# Formats that end in a fixed mark, and TIFF, whose directory may lie anywhere.
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82"}
_TIFF_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_FOREIGN = {  # what it is called that begins so, and is no image that anybody could decode here
    re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL): "HEIC",
    re.compile(rb"(\x00\x00\x00\x0cJXL |\xff\x0a)"): "JPEG XL",
    re.compile(rb"(II\*\x00|MM\x00\*)....CR", re.DOTALL): "camera RAW",
}
_NO_IMAGE = {
    re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE): "an HTML page",
    re.compile(rb"\s*(<\?xml.*)?<svg", re.DOTALL): "an SVG drawing",
    re.compile(rb"\s*<\?xml"): "XML",
    re.compile(rb"%PDF"): "a PDF",
    re.compile(rb"PK\x03\x04"): "a ZIP archive",
    re.compile(rb"\x00*\Z"): "zeros alone",
}
_MODE_NOTES = {
    "1": "bilevel, converted to RGB",
    "L": "grayscale, converted to RGB",
    "LA": "grayscale with alpha, alpha dropped",
    "La": "grayscale with alpha, alpha dropped",
    "P": "palette, converted to RGB",
    "PA": "palette with alpha, alpha dropped",
    "RGBA": "alpha dropped",
    "RGBa": "alpha dropped",
    "CMYK": "CMYK, converted to RGB",
    "YCbCr": "YCbCr, converted to RGB",
    "LAB": "Lab, converted to RGB",
    "HSV": "HSV, converted to RGB",
}
# What Pillow raises on damaged headers, data and metadata.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    Image.DecompressionBombError,
)
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would undercut a larger max_pixels


@dataclass(frozen=True)
class DecodedImage:
    """RGB pixels, upright, and what was done to get them (None: nothing worth a note)."""

    image: Image.Image
    note: str | None

    @property
    def size(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.image.height, self.image.width

    def resized(self, size: tuple[int, int]) -> np.ndarray:
        """Pixels [*size, 3] uint8, resized bilinearly with antialiasing."""
        if self.size == size:
            return np.array(self.image)
        return np.array(self.image.resize(size[::-1], Image.Resampling.BILINEAR))


def decode_image(data: bytes, *, max_pixels: int) -> DecodedImage:
    """Decode JPEG, PNG, WebP, TIFF or BMP.

    The first frame of an animation is taken; 16-bit, CMYK, palette and grey images are converted, alpha
    is dropped, and EXIF orientation is applied.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large` (told before decoding),
            `truncated` or `corrupt`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow warns of odd metadata; errors are raised all the same
        image = _open(data)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                "too_large",
                f"{width} x {height} pixels, over the limit of {max_pixels:,}: raise --max-pixels",
            )
        try:
            return _convert(image)
        except DAMAGE as error:
            raise _damaged(error, data) from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        if kind := _known(_FOREIGN, data):
            raise _unsupported(kind) from error
        if data.startswith((*_ENDS, *_TIFF_ORDERS)):
            raise _damaged(error, data) from error
        kind = _known(_NO_IMAGE, data)
        what = f"{len(data):,} bytes that start with {data[:8].hex(' ')}"
        raise ImageError("not_an_image", f"{what}: {kind}" if kind else what) from error
    except DAMAGE as error:
        raise _damaged(error, data) from error
    if image.format not in FORMATS:
        raise _unsupported(image.format or "foreign")
    return image


def _known(kinds: dict[re.Pattern[bytes], str], data: bytes) -> str | None:
    return next((name for start, name in kinds.items() if start.match(data)), None)


def _unsupported(kind: str) -> ImageError:
    article = "an" if kind[0] in "AI" else "a"
    what = f"{article} {kind} file; JPEG, PNG, WebP, TIFF and BMP can be read"
    return ImageError("unsupported", what)


def _convert(image: Image.Image) -> DecodedImage:
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a JPEG with previews behind it
        notes.append(f"first of {frames} frames")
    image.load()
    rgb, note = _to_rgb(image)
    if note:
        notes.append(note)
    orientation = _orientation(image)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
        notes.append(f"turned by EXIF orientation {orientation}")
    return DecodedImage(image=rgb, note="; ".join(notes) or None)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DAMAGE:  # of the metadata alone: the pixels are fine
        return 1
    return value if isinstance(value, int) else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after EXIF orientation, of an image whose header alone was read."""
    turned = _orientation(image) in _SWAPPING
    return (image.height, image.width) if turned else image.size


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    if image.mode == "RGB":
        return image, None
    if image.mode.startswith("I;16"):  # in one of several byte orders
        narrow = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(narrow).convert("RGB"), "16-bit grayscale, converted to RGB"
    if image.mode in ("I", "F"):
        raise ImageError("unsupported", f"32-bit pixels (mode {image.mode}) have no known range")
    return image.convert("RGB"), _MODE_NOTES.get(image.mode, f"{image.mode}, converted to RGB")


def _damaged(error: Exception, data: bytes) -> ImageError:
    reason = "unreadable header" if isinstance(error, UnidentifiedImageError) else str(error)
    short = any(word in reason.lower() for word in ("truncat", "eof", "end of", "premature"))
    kind = "truncated" if short or _is_cut(data) else "corrupt"
    return ImageError(kind, f"{len(data):,} bytes: {reason or type(error).__name__}")


def _is_cut(data: bytes) -> bool:
    """Whether a damaged file is shorter than its own format says."""
    for start, end in _ENDS.items():
        if data.startswith(start):
            return end not in data[-32:]
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if order := _TIFF_ORDERS.get(data[:4]):
        return len(data) <= int.from_bytes(data[4:8], order)
    return False
