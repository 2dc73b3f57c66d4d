"""Class tables: what a class id means, how it is called, and how label images encode it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dinoidd.classes.info import ClassInfo
from dinoidd.classes.level import Level, level_problems
from dinoidd.classes.parse import parse_table
from dinoidd.classes.raw import RawValues, is_raw, plain_values, raw_problems
from dinoidd.errors import ClassTableError

IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The classes of a data set; a class's id is its position.

    Two tables are equal when name, classes and ignore_index are: `raw` and `hierarchy` say how ground
    truth is read and summed up, not what a prediction means.
    """

    name: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int = IGNORE_INDEX
    raw: RawValues | None = field(default=None, compare=False)  # None: class ids as they are
    hierarchy: tuple[Level, ...] = field(default=(), compare=False)  # from fine to coarse

    def __post_init__(self) -> None:
        refuse(self.name, list(_problems(self)))

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

    @cached_property
    def raw_values(self) -> RawValues:
        """How label images are read: `raw`, or class ids as they are."""
        return self.raw or plain_values(len(self), self.ignore_index)

    def decode(self, label: np.ndarray) -> np.ndarray:
        """Class ids, uint8 [H, W], of a label image: uint8 [H, W] or uint8 [H, W, 3].

        Raises:
            ClassTableError: raw values that the table does not name.
        """
        return self.raw_values.decode(label)

    def level(self, name: str) -> Level:
        """The level of the hierarchy with that name. Raises ClassTableError."""
        for level in self.hierarchy:
            if level.name == name:
                return level
        there = [level.name for level in self.hierarchy] or "none"
        raise ClassTableError(f"class table '{self.name}' has no level '{name}': there are {there}")

    def to_dict(self, *, full: bool = False) -> dict[str, Any]:
        """As JSON: what a prediction means; `full`: raw values, hierarchy and official names too."""
        classes = [{"name": c.name, "color": list(c.color)} for c in self.classes]
        table = {"name": self.name, "ignore_index": self.ignore_index, "classes": classes}
        return _with_details(self, table) if full else table

    def stored(self) -> dict[str, Any]:
        """As a run and a checkpoint keep it: with the raw values that it names, if any."""
        return self.to_dict(full=self.raw is not None)

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "ClassTable":
        """Build a table from parsed JSON; all mistakes are told at once.

        Raises:
            ClassTableError: unknown keys, missing names, colours outside 0..255, repeated names or
                raw values, a hierarchy that leaves classes out.
        """
        parts, problems = parse_table(table)
        name = parts.pop("name")
        if problems:
            refuse(name, problems)
        return cls(name=name, **parts)


def refuse(name: str, problems: list[str]) -> None:
    """Raise ClassTableError with all the problems, if there are any."""
    if problems:
        raise ClassTableError(f"class table '{name}' is not usable: " + "; ".join(problems))


def _problems(table: ClassTable) -> Iterator[str]:
    if not 1 <= len(table.classes) <= 255:
        yield f"{len(table.classes)} classes (1 to 255 fit an 8-bit mask)"
    if not isinstance(table.ignore_index, int) or not len(table) <= table.ignore_index <= 255:
        yield f"ignore_index {table.ignore_index!r} (an integer from {len(table)} to 255)"
    yield from _class_problems(table)
    if table.raw is not None:
        yield from raw_problems(table.raw, len(table), table.ignore_index)
    for level in table.hierarchy:
        yield from level_problems(level, len(table))
    levels = [level.name for level in table.hierarchy]
    if len(set(levels)) < len(levels):
        yield f"two levels have the same name: {levels}"


def _class_problems(table: ClassTable) -> Iterator[str]:
    fields = table.fields
    for index, info in enumerate(table.classes):
        if not info.field:
            yield f"class {index} has no usable name ({info.name!r})"
        elif fields.index(info.field) != index:
            yield f"class {index} '{info.name}' has the field name of class {fields.index(info.field)}"
        if len(info.color) != 3 or not is_raw(info.color):
            yield f"class {index} '{info.name}' has colour {info.color} (three integers, 0 to 255)"


def _with_details(table: ClassTable, result: dict[str, Any]) -> dict[str, Any]:
    for info, entry in zip(table.classes, result["classes"], strict=True):
        if info.official is not None:
            entry["official"] = info.official
    if table.raw is not None:
        named: dict[int, list[Any]] = {}
        for value, class_id in [*table.raw.values.items(), *table.raw.colors.items()]:
            named.setdefault(class_id, []).append(
                list(value) if isinstance(value, tuple) else value
            )
        for class_id, entry in enumerate(result["classes"]):
            entry["values"] = named.get(class_id, [])
        result |= {"ignore": named.get(table.ignore_index, []), "unmapped": table.raw.unmapped}
    if table.hierarchy:
        result["hierarchy"] = [_level_dict(level, table.names) for level in table.hierarchy]
    return result


def _level_dict(level: Level, names: list[str]) -> dict[str, Any]:
    classes = [
        {
            "name": info.name,
            "color": list(info.color),
            "members": [name for name, of in zip(names, level.of, strict=True) if of == group],
        }
        for group, info in enumerate(level.classes)
    ]
    return {"name": level.name, "classes": classes}
