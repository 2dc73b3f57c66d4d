"""Label images: opened, resized as the official evaluation does, and turned into class ids."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from PIL import Image, UnidentifiedImageError

from dinoidd.classes import RawValues
from dinoidd.classes.raw import UNMAPPED
from dinoidd.errors import ClassTableError, ImageError

Size = tuple[int, int]  # width, height
_PNG_END = b"IEND\xaeB`\x82"
_SHOWN = 8  # unknown raw values in a message


@dataclass(frozen=True, kw_only=True)
class Label:
    """Class ids at the evaluation's size; void is the number of classes."""

    ids: np.ndarray  # uint8 [H, W]
    unknown: str | None  # the raw values that mean nothing and were taken as void, in words
    histogram: np.ndarray = field(repr=False)  # int64 [256], pixels of each raw value at full size


@dataclass(frozen=True)
class LabelReader:
    """Turns label images into class ids by a class table's raw values."""

    raw: RawValues
    classes: int

    def read(self, image: Image.Image, size: Size | None) -> Label:
        """The class ids of an opened label image.

        Pillow's nearest neighbour, which takes a pixel's centre, is what the official script uses.

        Args:
            image: one channel (raw values, or a palette's indices), or colours.
            size: what to resize it to; None: as it is.

        Raises:
            ImageError: `unsupported`: a kind of image that the class table cannot read.
        """
        resized = (
            image if size in (None, image.size) else image.resize(size, Image.Resampling.NEAREST)
        )
        if image.mode == "P" and not self.raw.values:
            resized = resized.convert("RGB")
        if resized.mode in ("RGB", "RGBA"):
            return self._read_colors(np.asarray(resized)[..., :3])
        if image.mode not in ("L", "P") or not self.raw.values:
            raise ImageError("unsupported", f"an image of mode {image.mode}: {self._expected}")
        histogram = np.array(image.histogram(), np.int64)
        names = np.flatnonzero(histogram[self._unknown]) if self._unknown.size else ()
        found = {int(value): int(histogram[value]) for value in self._unknown[names]}
        ids_HW = np.take(self._lookup, np.asarray(resized))
        return Label(ids=ids_HW, unknown=_in_words(found), histogram=histogram)

    def _read_colors(self, colors_HW3: np.ndarray) -> Label:
        if not self.raw.colors:
            raise ImageError("unsupported", f"an image in colour: {self._expected}")
        unknown = None
        try:
            ids_HW = self.raw.decode(colors_HW3)
        except ClassTableError as error:
            unknown = str(error)
            ids_HW = replace(self.raw, unmapped="ignore").decode(colors_HW3)
        void_HW = np.minimum(ids_HW, np.uint8(self.classes))
        return Label(ids=void_HW, unknown=unknown, histogram=np.zeros(256, np.int64))

    @property
    def _expected(self) -> str:
        kinds = ["one 8-bit channel"] * bool(self.raw.values) + ["RGB"] * bool(self.raw.colors)
        return f"the class table reads {' or '.join(kinds)}"

    @cached_property
    def _unknown(self) -> np.ndarray:
        return np.flatnonzero(self.raw.value_lookup == UNMAPPED)

    @cached_property
    def _lookup(self) -> np.ndarray:
        """Class ids of raw values, uint8 [256]; whatever is no class is void."""
        ids = self.raw.value_lookup
        return np.where((ids < 0) | (ids >= self.classes), self.classes, ids).astype(np.uint8)


def _in_words(pixels: Mapping[int, int]) -> str | None:
    if not pixels:
        return None
    most = sorted(pixels, key=lambda value: -pixels[value])
    shown = ", ".join(f"{value} ({pixels[value]:,} px)" for value in most[:_SHOWN])
    more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    return f"raw values that the class table does not name: {shown}{more}; they count as void"


def open_label(png: bytes) -> Image.Image:
    """A whole PNG, decoded.

    Raises:
        ImageError: `empty`, `not_an_image` or `truncated`.
    """
    if not png:
        raise ImageError("empty", "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(png), formats=["PNG"])
            image.load()
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", f"{len(png):,} bytes that are no PNG") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError("truncated", f"a damaged PNG of {len(png):,} bytes: {error}") from error
    if _PNG_END not in png[-64:]:  # Pillow is content once it has all pixels
        raise ImageError("truncated", f"a damaged PNG of {len(png):,} bytes: its end is lost")
    return image
