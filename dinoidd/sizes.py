"""Amounts of bytes and of time as people write them."""

import re

from dinoidd.errors import ConfigError

_BYTES = {
    **{"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def parse_size(option: str, text: str) -> int:
    """`256MB`, `1.5 GiB` as bytes. Raises ConfigError, which names the option."""
    return int(_parsed(text, _BYTES, f"{option} {text!r} is no size: write 256MB or 1GiB"))


def parse_seconds(option: str, text: str) -> float:
    """`90s`, `30m`, `8h`, `2d` as seconds. Raises ConfigError, which names the option."""
    return _parsed(text, _SECONDS, f"{option} {text!r} is no time: write 90s, 30m, 8h or 2d")


def _parsed(text: str, units: dict[str, int], mistake: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None or not (value := float(match[1]) * unit) > 0:
        raise ConfigError(mistake)
    return value
