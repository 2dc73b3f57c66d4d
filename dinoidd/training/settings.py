"""Single settings of a training run: their dotted names, types and values, from text or from files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dinoidd.errors import ConfigError
from dinoidd.training.config import TrainConfig

Plain = str | int | float | bool | None | list[float]  # what TOML and JSON hold
NOTHING = "none"  # in text and in TOML, which has no null
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[float, float]: "two numbers like 0.5,2",
    tuple[float, ...]: "numbers like 1,0.5,2",
}


@cache
def setting_names() -> dict[str, Any]:
    """Every setting by its dotted name, in order, and its type."""
    return dict(_types_of(TrainConfig))


def _types_of(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        kind = hints[field.name]
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _types_of(kind, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, kind


def is_several(name: str) -> bool:
    """Whether that setting's value is several numbers."""
    kind, _ = _without_none(setting_names().get(name))
    return get_origin(kind) is tuple


def parse_settings(texts: Sequence[str]) -> tuple[dict[str, Plain], list[str]]:
    """`key=value` texts as values of their setting's type, and what is wrong with them."""
    values: dict[str, Plain] = {}
    problems = []
    for text in texts:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        kind = setting_names().get(name)
        if not equals:
            problems.append(f"'{text}' is no setting: write KEY=VALUE")
        elif kind is None:
            values[name] = value  # `build` tells which keys there are
        else:
            values[name] = _from_text(value, kind)
    return values, problems


def build(layer: Mapping[str, Plain]) -> tuple[TrainConfig | None, list[str]]:
    """The configuration of settings by dotted name, or everything that is wrong with them."""
    names = setting_names()
    values: dict[str, Any] = {}
    problems = _unknown([name for name in layer if name not in names])
    for name, value in layer.items():
        if name in names:
            try:
                values[name] = _checked(name, value, names[name])
            except ConfigError as error:
                problems.append(str(error))
    missing = [name for name in ("data", "output") if name not in layer]
    problems += [f"{name} is not given: name it with --{name}" for name in missing]
    try:
        config = _made(TrainConfig, nested(values | dict.fromkeys(missing, "-")))
    except ConfigError as error:
        problems.append(str(error))
    return (None, problems) if problems else (config, [])


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested tables."""
    content: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, key = name.rpartition(".")
        (content.setdefault(group, {}) if dot else content)[key] = value
    return content


def _made(cls: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    parts = {
        name: _made(hints[name], value) if is_dataclass(hints[name]) else value
        for name, value in values.items()
    }
    return cls(**parts)


def _unknown(names: Sequence[str]) -> list[str]:
    """One problem for all keys that there are not: the nearest ones, and the list."""
    if not names:
        return []
    told = ", ".join(name + _meant(name) for name in names)
    word = "setting" if len(names) == 1 else "settings"
    return [f"unknown {word} {told}: there are {', '.join(setting_names())}"]


def _meant(name: str) -> str:
    known = setting_names()
    last = _last(name)
    same = [n for n in known if last in (_last(n), _initials(n))]
    close = same or get_close_matches(name, known, n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _last(name: str) -> str:
    """`learning_rate` of `optimizer.learning_rate`."""
    return name.rpartition(".")[2]


def _initials(name: str) -> str:
    """`lr` of `optimizer.learning_rate`."""
    return "".join(word[:1] for word in _last(name).split("_"))


def _from_text(text: str, kind: Any) -> Plain:
    """The text as a value of that type where it is one, as it is otherwise."""
    kind, optional = _without_none(kind)
    if optional and text.lower() == NOTHING:
        return None
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    try:
        if kind is int:
            return int(text.replace("_", ""))
        if kind is float:
            return float(text)
        if get_origin(kind) is tuple:
            return [float(part) for part in text.strip("()[]").split(",")]
    except ValueError:
        pass
    return text


def _checked(name: str, value: Plain, kind: Any) -> Any:
    """The value as the configuration holds it. Raises ConfigError where it is of another type."""
    kind, optional = _without_none(kind)
    if optional and (value is None or value == NOTHING):
        return None
    if kind is float and _is_number(value):
        return float(value)  # type: ignore[arg-type]  # a number
    if get_origin(kind) is tuple:
        if isinstance(value, list) and _fits(value, kind) and all(map(_is_number, value)):
            return tuple(map(float, value))
    elif kind is not float and type(value) is kind:
        return value
    none = f" or {NOTHING}" if optional else ""
    shown = ",".join(map(str, value)) if isinstance(value, list) else value
    raise ConfigError(f"{name}={shown}: expected {_WORDS[kind]}{none}")


def _fits(value: list, kind: Any) -> bool:
    """Whether a list is as long as the tuple type wants it."""
    parts = get_args(kind)
    return Ellipsis in parts or len(value) == len(parts)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value)  # type: ignore[arg-type]


def _without_none(kind: Any) -> tuple[Any, bool]:
    """`int` and True of `int | None`."""
    if isinstance(kind, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
        return kind, True
    return kind, False
