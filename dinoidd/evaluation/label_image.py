"""Label images resized as the official evaluation does, and turned into class ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from PIL import Image

from dinoidd.classes import RawValues
from dinoidd.classes.raw import UNMAPPED
from dinoidd.data.label_image import count_values
from dinoidd.errors import ClassTableError, ImageError

Size = tuple[int, int]  # width, height
_SHOWN = 8  # unknown raw values in a message


@dataclass(frozen=True, kw_only=True)
class Label:
    """Class ids at the evaluation's size; void is the number of classes."""

    ids: np.ndarray  # uint8 [H, W]
    unknown: str | None  # the raw values that mean nothing and were taken as void, in words
    counts: Mapping[int, int] = field(repr=False)  # raw value: pixels at full size; not of colours
    full_size: Size  # before it was resized


@dataclass(frozen=True)
class LabelReader:
    """Turns raw values into class ids as a class table says."""

    raw: RawValues
    classes: int

    def read(self, raw: np.ndarray, size: Size | None) -> Label:
        """The class ids of a label image.

        Pillow's nearest neighbour, which takes a pixel's centre, is what the official script uses.

        Args:
            raw: uint8 [H, W] raw values, or uint8 [H, W, 3] colours.
            size: what to resize it to; None: as it is.

        Raises:
            ImageError: `unsupported`: a kind of image that the class table cannot read.
        """
        resized = raw if size is None or size == size_of(raw) else _resized(raw, size)
        if raw.ndim == 3:
            return self._read_colors(resized, size_of(raw))
        if not self.raw.values:
            raise ImageError("unsupported", f"an image of one channel: {self._expected}")
        counts = count_values(raw)
        unknown = {v: n for v, n in counts.items() if self.raw.value_lookup[v] == UNMAPPED}
        return Label(
            ids=np.take(self._lookup, resized),
            unknown=_in_words(unknown),
            counts=counts,
            full_size=size_of(raw),
        )

    def _read_colors(self, colors_HW3: np.ndarray, full_size: Size) -> Label:
        if not self.raw.colors:
            raise ImageError("unsupported", f"an image in colour: {self._expected}")
        unknown = None
        try:
            ids_HW = self.raw.decode(colors_HW3)
        except ClassTableError as error:
            unknown = str(error)
            ids_HW = replace(self.raw, unmapped="ignore").decode(colors_HW3)
        void_HW = np.minimum(ids_HW, np.uint8(self.classes))
        return Label(ids=void_HW, unknown=unknown, counts={}, full_size=full_size)

    @property
    def _expected(self) -> str:
        kinds = ["one 8-bit channel"] * bool(self.raw.values) + ["RGB"] * bool(self.raw.colors)
        return f"the class table reads {' or '.join(kinds)}"

    @cached_property
    def _lookup(self) -> np.ndarray:
        """Class ids of raw values, uint8 [256]; whatever is no class is void."""
        ids = self.raw.value_lookup
        return np.where((ids < 0) | (ids >= self.classes), self.classes, ids).astype(np.uint8)


def size_of(raw: np.ndarray) -> Size:
    """Width and height."""
    return raw.shape[1], raw.shape[0]


def _resized(raw: np.ndarray, size: Size) -> np.ndarray:
    return np.asarray(Image.fromarray(raw).resize(size, Image.Resampling.NEAREST))


def _in_words(pixels: Mapping[int, int]) -> str | None:
    if not pixels:
        return None
    most = sorted(pixels, key=lambda value: -pixels[value])
    shown = ", ".join(f"{value} ({pixels[value]:,} px)" for value in most[:_SHOWN])
    more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    return f"raw values that the class table does not name: {shown}{more}; they count as void"
