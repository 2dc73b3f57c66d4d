"""Class tables: what a class id means, how it is called and which colour it has."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinoidd.errors import ClassTableError

IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True)
class ClassInfo:
    """One class: its display name and its colour (red, green, blue; 0..255)."""

    name: str
    color: tuple[int, int, int]

    @property
    def field(self) -> str:
        """The name as a Parquet field: `traffic light` is `traffic_light`."""
        return re.sub(r"\W+", "_", self.name.strip().lower()).strip("_")


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The classes of a data set; a class's id is its position."""

    name: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ClassTableError(
                f"class table '{self.name}' is not usable: " + "; ".join(problems)
            )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]

    @property
    def fields(self) -> list[str]:
        """Parquet field names, in class order."""
        return [c.field for c in self.classes]

    @property
    def palette(self) -> bytes:
        """256 RGB triples: the class colours, then black."""
        colors = b"".join(bytes(c.color) for c in self.classes)
        return colors.ljust(256 * 3, b"\0")

    def to_dict(self) -> dict[str, Any]:
        classes = [{"name": c.name, "color": list(c.color)} for c in self.classes]
        return {"name": self.name, "ignore_index": self.ignore_index, "classes": classes}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "ClassTable":
        """Build a table from parsed JSON; all mistakes are told at once.

        Raises:
            ClassTableError: unknown keys, missing names, colours outside 0..255, repeated names.
        """
        if not isinstance(table, dict):
            raise ClassTableError(f"a class table is a JSON object, not {type(table).__name__}")
        unknown = sorted(set(table) - {"name", "ignore_index", "classes"})
        if unknown or not isinstance(table.get("classes"), list):
            what = f"unknown keys {unknown}" if unknown else "no list 'classes'"
            raise ClassTableError(
                f'class table: {what}; expected {{"name", "classes": [{{"name", "color"}}, ...]}}'
            )
        classes = tuple(_class_info(i, entry) for i, entry in enumerate(table["classes"]))
        ignore_index = table.get("ignore_index", IGNORE_INDEX)
        return cls(
            name=str(table.get("name", "custom")), classes=classes, ignore_index=ignore_index
        )


def _class_info(index: int, entry: Any) -> ClassInfo:
    if not isinstance(entry, dict) or set(entry) != {"name", "color"}:
        raise ClassTableError(f'class {index}: expected {{"name", "color"}}, got {entry!r}')
    color = entry["color"]
    if not isinstance(color, Sequence) or isinstance(color, str) or len(color) != 3:
        raise ClassTableError(
            f"class {index} ('{entry['name']}'): colour {color!r} is not [r, g, b]"
        )
    return ClassInfo(name=str(entry["name"]), color=tuple(color))


def _problems(table: ClassTable) -> Iterator[str]:
    if not 1 <= len(table.classes) <= 255:
        yield f"{len(table.classes)} classes (1 to 255 fit an 8-bit mask)"
    if not isinstance(table.ignore_index, int) or not len(table) <= table.ignore_index <= 255:
        yield f"ignore_index {table.ignore_index!r} (an integer from {len(table)} to 255)"
    fields = table.fields
    for index, info in enumerate(table.classes):
        if not info.field:
            yield f"class {index} has no usable name ({info.name!r})"
        elif fields.index(info.field) != index:
            yield f"class {index} '{info.name}' has the field name of class {fields.index(info.field)}"
        if not all(isinstance(v, int) and 0 <= v <= 255 for v in info.color):
            yield f"class {index} '{info.name}' has colour {info.color} (three integers, 0 to 255)"


# IDD level 3 (AutoNUE). Colours are the official ones, except where those are hard to tell apart on a
# mask (12, 16 and 21 were greys next to pole, fence and the sky's fallback).
_IDD = {
    "road": (128, 64, 128),
    "parking": (81, 0, 81),
    "sidewalk": (244, 35, 232),
    "rail track": (230, 150, 140),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "autorickshaw": (255, 204, 54),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "vehicle fallback": (130, 80, 230),
    "curb": (200, 255, 120),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (210, 130, 230),
    "billboard": (174, 64, 67),
    "traffic sign": (220, 220, 0),
    "traffic light": (250, 150, 10),
    "pole": (153, 153, 153),
    "obs-str-bar-fallback": (0, 170, 160),
    "building": (70, 70, 70),
    "bridge": (150, 100, 100),
    "vegetation": (107, 142, 35),
    "sky": (70, 130, 180),
}
IDD = ClassTable(name="idd", classes=tuple(ClassInfo(name=n, color=c) for n, c in _IDD.items()))
BUILT_IN = {"idd": IDD}


def load_class_table(name_or_file: str) -> ClassTable:
    """The built-in table of that name, or the table in that JSON file.

    Raises:
        ClassTableError: neither a built-in name nor a readable, valid file.
    """
    if name_or_file in BUILT_IN:
        return BUILT_IN[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".json" or not path.is_file():
        raise ClassTableError(
            f"unknown class table '{name_or_file}': built in are {sorted(BUILT_IN)}; "
            "your own is the path of an existing .json file"
        )
    try:
        return ClassTable.from_dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ClassTableError(f"class table {path} is not JSON: {error}") from error
