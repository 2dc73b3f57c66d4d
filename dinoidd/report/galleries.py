"""Which images a report shows: the least sure, a fair sample, and those with the most of each class.

They are ranked by columns alone. Where a run is larger than the sample they are ranked within a fair
sample of it, picked by a hash of id and seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from dinoidd.classes import ClassTable
from dinoidd.output.query import rows_of, sql_errors
from dinoidd.report.axes import FOLDER
from dinoidd.report.sql import member

_LEAST_CONFIDENT, _FAIR, _OF_A_CLASS = 12, 8, 4  # pictures
_CANDIDATES = 24  # images that a class's gallery is picked from
_NEIGHBOURS = 5  # frames of one folder that are this near look alike


@dataclass(frozen=True)
class Pick:
    """One image of a gallery."""

    image_id: int
    share: float | None = None  # of the gallery's class, 0..1


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images for one heading; `class_id` is that of a gallery of one class."""

    title: str
    picks: Sequence[Pick]
    class_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Galleries:
    """All galleries, in the order of the page."""

    least_confident: Gallery
    fair: Gallery
    of_classes: Sequence[Gallery]
    ranked: int  # images that were compared

    @property
    def all(self) -> list[Gallery]:
        """In the order in which pictures are worth their bytes."""
        return [self.least_confident, self.fair, *self.of_classes]


def choose_galleries(
    connection: duckdb.DuckDBPyConnection, table: ClassTable, *, ok: int, sample: int, seed: int
) -> Galleries:
    """Rank the images of `collect`'s connection, `ok` of which have masks; `sample` 0 ranks all."""
    if sample and ok > sample:
        with sql_errors():
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE ranked AS SELECT image_id FROM facts "
                f"WHERE status = 'ok' ORDER BY {_order(seed)} LIMIT {sample}"
            )
        condition = "status = 'ok' AND image_id IN (FROM ranked)"
    else:
        condition = "status = 'ok'"
    return Galleries(
        least_confident=_least_confident(connection, condition),
        fair=_fair(connection, condition, seed),
        of_classes=_of_classes(connection, condition, table),
        ranked=min(ok, sample) if sample else ok,
    )


def _order(seed: int) -> str:
    return f"md5(image_id || ' {seed}')"


def _least_confident(connection: duckdb.DuckDBPyConnection, condition: str) -> Gallery:
    rows = rows_of(
        connection,
        f"SELECT image_id FROM facts WHERE {condition} AND confidence IS NOT NULL "
        f"ORDER BY confidence, image_id LIMIT {_LEAST_CONFIDENT}",
    )
    return Gallery(title="Least confident", picks=[Pick(row["image_id"]) for row in rows])


def _fair(connection: duckdb.DuckDBPyConnection, condition: str, seed: int) -> Gallery:
    rows = rows_of(
        connection,
        f"SELECT image_id FROM facts WHERE {condition} ORDER BY {_order(seed)} LIMIT {_FAIR}",
    )
    ids = sorted(row["image_id"] for row in rows)
    return Gallery(title="Picked at random", picks=[Pick(i) for i in ids])


def _of_classes(
    connection: duckdb.DuckDBPyConnection, condition: str, table: ClassTable
) -> list[Gallery]:
    columns = ", ".join(
        f"arg_max({{'id': image_id, 'folder': {FOLDER}, 'share': {member('fraction', name)}}}, "
        f"({member('fraction', name)}, -image_id), {_CANDIDATES}) "
        f"FILTER ({member('fraction', name)} > 0) AS c{i}"
        for i, name in enumerate(table.fields)
    )
    row = rows_of(connection, f"SELECT {columns} FROM images WHERE {condition}")[0]
    galleries = [
        Gallery(title=info.name, picks=pick_apart(row[f"c{i}"] or [], _OF_A_CLASS), class_id=i)
        for i, info in enumerate(table.classes)
    ]
    return [gallery for gallery in galleries if gallery.picks]


def pick_apart(candidates: Sequence[dict[str, Any]], count: int) -> list[Pick]:
    """The first `count`, without those that a neighbour in the same folder stands for already.

    Where that leaves too few, neighbours are taken after all; the order stays.
    """
    chosen: list[dict[str, Any]] = []
    for candidate in candidates:
        if len(chosen) < count and not any(_near(candidate, other) for other in chosen):
            chosen.append(candidate)
    chosen += [c for c in candidates if c not in chosen][: count - len(chosen)]
    return [Pick(c["id"], c["share"]) for c in sorted(chosen, key=candidates.index)]


def _near(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["folder"] == b["folder"] and abs(a["id"] - b["id"]) <= _NEIGHBOURS
