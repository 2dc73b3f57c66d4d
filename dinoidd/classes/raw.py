"""What the pixels of a data set's label images mean: raw values and colours to class ids."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from dinoidd.errors import ClassTableError

Color = tuple[int, int, int]
UNMAPPED = -1  # in the lookup tables: a raw value that the table does not name
_SHOWN = 8  # raw values in a message


@dataclass(frozen=True, kw_only=True)
class RawValues:
    """How label images encode the classes of a table.

    An image with one channel is read by `values` (0..255), an RGB image by `colors`. Both give a class
    id, or the table's ignore_index. What they do not name is an error, or ignored, as `unmapped` says.
    """

    values: Mapping[int, int] = field(default_factory=dict)
    colors: Mapping[Color, int] = field(default_factory=dict)
    unmapped: Literal["error", "ignore"] = "error"
    ignore_index: int = 255

    @cached_property
    def value_lookup(self) -> np.ndarray:
        """Class ids of the raw values 0..255; int16 [256], UNMAPPED where there is none."""
        lookup = np.full(256, self._unnamed, np.int16)
        for value, class_id in self.values.items():
            lookup[value] = class_id
        return lookup

    @cached_property
    def _color_lookup(self) -> np.ndarray:
        # 32 MB of zeros, of which the system gives only the touched pages; class id + 2.
        lookup = np.zeros(1 << 24, np.uint16)
        for (red, green, blue), class_id in self.colors.items():
            lookup[red << 16 | green << 8 | blue] = class_id + 2
        return lookup

    @property
    def _unnamed(self) -> int:
        return self.ignore_index if self.unmapped == "ignore" else UNMAPPED

    def __getstate__(self) -> dict[str, object]:
        """Without the lookup tables: a worker makes its own."""
        names = ("values", "colors", "unmapped", "ignore_index")
        return {name: getattr(self, name) for name in names}

    def decode(self, label: np.ndarray) -> np.ndarray:
        """Class ids of a label image; uint8 [H, W].

        Args:
            label: uint8 [H, W] raw values, or uint8 [H, W, 3] colours.

        Raises:
            ClassTableError: raw values that are not named (where that is an error), or an image of a
                kind that the table does not read.
        """
        if label.dtype != np.uint8 or label.ndim not in (2, 3) or label.shape[2:] not in ((), (3,)):
            raise ClassTableError(
                f"a label image is uint8 [H, W] or [H, W, 3], not {label.dtype} {list(label.shape)}"
            )
        ids_HW = self._decode_colors(label) if label.ndim == 3 else self.value_lookup[label]
        if ids_HW.min(initial=0) == UNMAPPED:
            self._refuse(label[ids_HW == UNMAPPED])
        return ids_HW.astype(np.uint8)

    def _decode_colors(self, label_HW3: np.ndarray) -> np.ndarray:
        if not self.colors:
            raise ClassTableError(
                "the label image is in colour, and the class table names raw values only"
            )
        red, green, blue = (label_HW3[..., i].astype(np.uint32) for i in range(3))
        ids_HW = self._color_lookup[red << 16 | green << 8 | blue].astype(np.int16) - 2
        ids_HW[ids_HW == -2] = self._unnamed
        return ids_HW

    def _refuse(self, pixels: np.ndarray) -> None:
        found, counts = np.unique(pixels, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_SHOWN]
        shown = ", ".join(f"{found[i].tolist()} ({counts[i]} pixels)" for i in order)
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ClassTableError(
            f"raw values that the class table does not name: {shown}{more}; name them in the table, "
            "or set its 'unmapped' to 'ignore'"
        )


def plain_values(classes: int, ignore_index: int = 255) -> RawValues:
    """Class ids as they are, and ignore_index."""
    values = {i: i for i in range(classes)} | {ignore_index: ignore_index}
    return RawValues(values=values, ignore_index=ignore_index)


def raw_problems(raw: RawValues, classes: int, ignore_index: int) -> Iterator[str]:
    """What is wrong with the raw values of a table of that many classes."""
    if not raw.values and not raw.colors:
        yield "the raw values name neither a value nor a colour"
    if raw.ignore_index != ignore_index:
        yield f"the raw values ignore {raw.ignore_index}, the table ignores {ignore_index}"
    if raw.unmapped not in ("error", "ignore"):
        yield f"unmapped {raw.unmapped!r} (error or ignore)"
    for value, class_id in [*raw.values.items(), *raw.colors.items()]:
        if not is_raw(value):
            yield f"raw value {value!r} (0 to 255, or three of them for a colour)"
        if not (0 <= class_id < classes or class_id == ignore_index):
            yield f"raw value {value!r} is class {class_id!r} (0 to {classes - 1}, or {ignore_index})"


def is_raw(value: object) -> bool:
    """Whether it is an integer 0..255 or three of them."""
    if isinstance(value, tuple | list):
        return len(value) == 3 and all(_is_byte(v) for v in value)
    return _is_byte(value)


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
