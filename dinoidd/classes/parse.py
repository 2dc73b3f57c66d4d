"""A class table's JSON, read leniently: every mistake is collected, none hides the next.

    {"name": "mine", "ignore_index": 255, "unmapped": "error", "ignore": [255, [0, 0, 0]],
     "classes": [{"name": "road", "color": [128, 64, 128], "values": [7, [90, 30, 150]]}, ...],
     "hierarchy": [{"name": "coarse", "classes": [{"name": "flat", "members": ["road", ...]}]}]}

`values` and `ignore` hold raw label values: integers, or colours. Without any, label images hold class
ids and ignore_index. A level's classes may have a `color`; else it is the first member's.
"""

from typing import Any

from dinoidd.classes.info import ClassInfo
from dinoidd.classes.level import Level
from dinoidd.classes.raw import RawValues, is_raw

_TABLE = {"name", "ignore_index", "classes", "ignore", "unmapped", "hierarchy"}
_CLASS = {"name", "color", "official", "values"}
_LEVEL, _GROUP = {"name", "classes"}, {"name", "color", "members"}
_BLACK = (0, 0, 0)


def parse_table(table: Any) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a ClassTable, and what is wrong with them (what only it can see left out)."""
    problems: list[str] = []
    if not isinstance(table, dict):
        return {"name": "?"}, [f"it is a JSON object, not {type(table).__name__}"]
    _check_keys(table, _TABLE, {"classes"}, "the table", problems)
    entries = _list(table, "classes", "the table", problems)
    parts: dict[str, Any] = {"name": str(table.get("name", "custom"))}
    parts["ignore_index"] = table.get("ignore_index", 255)
    parts["classes"] = tuple(_class_info(i, entry, problems) for i, entry in enumerate(entries))
    if raw := _raw_values(table, entries, parts["ignore_index"], problems):
        parts["raw"] = raw
    levels = _list(table, "hierarchy", "the table", problems) if "hierarchy" in table else []
    parts["hierarchy"] = tuple(_level(level, parts["classes"], problems) for level in levels)
    return parts, problems


def _check_keys(
    entry: Any, allowed: set[str], needed: set[str], where: str, problems: list[str]
) -> bool:
    if not isinstance(entry, dict):
        problems.append(f"{where} is {entry!r}, not an object")
        return False
    if unknown := sorted(set(entry) - allowed):
        problems.append(f"{where} has unknown keys {unknown}; there are {sorted(allowed)}")
    if missing := sorted(needed - set(entry)):
        problems.append(f"{where} lacks {missing}")
    return True


def _list(entry: dict[str, Any], key: str, where: str, problems: list[str]) -> list[Any]:
    value = entry.get(key, [])
    if isinstance(value, list):
        return value
    problems.append(f"'{key}' of {where} is {value!r}, not a list")
    return []


def _class_info(index: int, entry: Any, problems: list[str]) -> ClassInfo:
    where = f"class {index}"
    if not _check_keys(entry, _CLASS, {"name", "color"}, where, problems):
        return ClassInfo(name=where, color=_BLACK)
    name = str(entry.get("name", where))
    color = _color(entry.get("color", list(_BLACK)), f"{where} '{name}'", problems)
    return ClassInfo(name=name, color=color, official=entry.get("official"))


def _color(value: Any, where: str, problems: list[str]) -> tuple[int, int, int]:
    if isinstance(value, list | tuple) and is_raw(value):
        return (value[0], value[1], value[2])
    problems.append(f"{where} has colour {value!r} (three integers, 0 to 255)")
    return _BLACK


def _raw_values(
    table: dict[str, Any], entries: list[Any], ignore_index: Any, problems: list[str]
) -> RawValues | None:
    named = [
        (class_id, value, f"class {class_id} '{entry.get('name')}'")
        for class_id, entry in enumerate(entries)
        if isinstance(entry, dict)
        for value in _list(entry, "values", f"class {class_id}", problems)
    ]
    ignored = _list(table, "ignore", "the table", problems)
    named += [(ignore_index, value, "'ignore'") for value in ignored]
    unmapped = table.get("unmapped", "error")
    if unmapped not in ("error", "ignore"):
        problems.append(f"unmapped {unmapped!r} (error or ignore)")
    if not named:
        if "unmapped" in table:
            problems.append("'unmapped' is for tables with raw 'values', and no class has any")
        return None
    places = _places(named, problems)
    return RawValues(
        values={value: place for value, place in places.items() if isinstance(value, int)},
        colors={value: place for value, place in places.items() if isinstance(value, tuple)},
        unmapped=unmapped,
        ignore_index=ignore_index,
    )


def _places(named: list[tuple[int, Any, str]], problems: list[str]) -> dict[Any, int]:
    """Raw value or colour to class id."""
    places: dict[Any, int] = {}
    owners: dict[Any, str] = {}
    for class_id, value, owner in named:
        if not is_raw(value):
            problems.append(f"{owner} has raw value {value!r} (0 to 255, or a colour of three)")
            continue
        key = tuple(value) if isinstance(value, list) else value
        if key in owners:
            problems.append(f"raw value {value!r} is that of {owners[key]} and of {owner}")
        places[key], owners[key] = class_id, owner
    return places


def _level(entry: Any, classes: tuple[ClassInfo, ...], problems: list[str]) -> Level:
    if not _check_keys(entry, _LEVEL, _LEVEL, "a level of 'hierarchy'", problems):
        return Level(name="?", classes=(), of=())
    name = str(entry.get("name"))
    where = f"level '{name}'"
    ids = {info.name: index for index, info in enumerate(classes)}
    of: dict[int, int] = {}
    infos = []
    for group, coarse in enumerate(_list(entry, "classes", where, problems)):
        members = _members(coarse, ids, where, problems)
        for member in members:
            if member in of:
                problems.append(f"{where}: '{classes[member].name}' is in two classes")
            of[member] = group
        infos.append(_coarse_class(coarse, members, classes, where, problems))
    if absent := [info.name for index, info in enumerate(classes) if index not in of]:
        problems.append(f"{where} leaves out {absent}")
    return Level(
        name=name, classes=tuple(infos), of=tuple(of.get(c, 0) for c in range(len(classes)))
    )


def _members(entry: Any, ids: dict[str, int], where: str, problems: list[str]) -> list[int]:
    if not _check_keys(entry, _GROUP, {"name", "members"}, f"a class of {where}", problems):
        return []
    names = _list(entry, "members", f"'{entry.get('name')}' of {where}", problems)
    if unknown := [name for name in names if not isinstance(name, str) or name not in ids]:
        problems.append(
            f"'{entry.get('name')}' of {where} has members that are no class: {unknown}"
        )
    if not names:
        problems.append(f"'{entry.get('name')}' of {where} has no members")
    return [ids[name] for name in names if isinstance(name, str) and name in ids]


def _coarse_class(
    entry: Any,
    members: list[int],
    classes: tuple[ClassInfo, ...],
    where: str,
    problems: list[str],
) -> ClassInfo:
    if not isinstance(entry, dict):
        return ClassInfo(name="?", color=_BLACK)
    name = str(entry.get("name", "?"))
    color = classes[members[0]].color if members else _BLACK
    if "color" in entry:
        color = _color(entry["color"], f"'{name}' of {where}", problems)
    return ClassInfo(name=name, color=color)
