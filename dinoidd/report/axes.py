"""Folders (the drives of a data set) and time, where the names of images tell them."""

from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from dinoidd.output.query import rows_of

MOST_FOLDERS = 40
_MOST_TIMES = 60
_FEW = 2  # images a folder: fewer say nothing
_TOLD = 0.9  # of the names have to tell the time
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY, 365 * _DAY),
)
_NAME = "regexp_extract(uri, '[^/]*$')"
# 2026-01-31_23-59-59, 20260131T235959123, ...
_DATE = (
    "(?:^|[^0-9])((?:19|20)[0-9]{2}[-_.]?[01][0-9][-_.]?[0-3][0-9][-_T. ]?"
    "[0-2][0-9][-_:.h]?[0-5][0-9][-_:.m]?[0-5][0-9])"
)
# Seconds since 1970 from 2001 to 2033, or milli-, micro- or nanoseconds.
_EPOCH = "(?:^|[^0-9])(1[0-9]{9}(?:[0-9]{3}|[0-9]{6}|[0-9]{9})?)(?:[^0-9]|$)"
_DIGITS = f"regexp_replace(regexp_extract({_NAME}, '{_DATE}', 1), '[^0-9]', '', 'g')"
_NUMBER = f"regexp_extract({_NAME}, '{_EPOCH}', 1)"

# Of a URI, in SQL: its folder; and seconds since 1970 by its name, NULL where that tells no time.
FOLDER = "regexp_replace(uri, '[^/]*$', '')"
SECONDS = (
    f"coalesce(epoch(try_strptime({_DIGITS}, '%Y%m%d%H%M%S')), "
    f"try_cast({_NUMBER} AS DOUBLE) / pow(10, length({_NUMBER}) - 10))"
)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What the images are summed up by."""

    folders: tuple[str, ...] = ()  # the largest, by name; none where folders say nothing
    all_folders: int = 0
    step: int | None = None  # seconds of a stretch of time; None where names tell no time
    timed: int = 0  # images whose names tell the time


def choose_axes(connection: duckdb.DuckDBPyConnection, images: int) -> Axes:
    """Look at the folders and times of the table `facts`."""
    total = rows_of(connection, "SELECT count(DISTINCT folder) AS n FROM facts")[0]["n"]
    folders: list[str] = []
    if total > 1 and images >= _FEW * total:
        rows = rows_of(
            connection,
            "SELECT folder FROM facts GROUP BY folder "
            f"ORDER BY count(*) DESC, folder LIMIT {MOST_FOLDERS}",
        )
        folders = sorted(row["folder"] for row in rows)
    span = rows_of(
        connection,
        "SELECT count(seconds) AS told, max(seconds) - min(seconds) AS span FROM facts",
    )[0]
    told = images > 0 and span["told"] >= _TOLD * images and span["span"] >= 1
    return Axes(
        folders=tuple(folders),
        all_folders=total,
        step=_step(span["span"]) if told else None,
        timed=span["told"],
    )


def time_label(seconds: float, step: int) -> str:
    """A moment in UTC, as exact as steps of that many seconds need."""
    form = "%Y-%m-%d" if step >= _DAY else "%Y-%m-%d %H:%M" if step >= _MINUTE else "%H:%M:%S"
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def _step(span: float) -> int:
    return next((s for s in _STEPS if span / s <= _MOST_TIMES), int(span / _MOST_TIMES) + 1)
