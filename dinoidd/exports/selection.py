"""Which images are exported, and their rows as a stream: one row group in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinoidd.output.query import open_query, rows_of, select, sql_errors
from dinoidd.output.reader import RunReader


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images that match a condition."""

    ids: np.ndarray  # int64, ascending: they match and are ok
    errors: dict[str, int]  # rows that match and have no mask, by error_kind
    not_matching: int


def select_images(run: RunReader, where: str) -> Selection:
    """The rows for which the SQL condition `where` is true; 8 bytes an image are kept.

    Raises:
        ConfigError: the condition is no SQL.
    """
    told_as, condition = f"--where {where!r}", f"(\n{where}\n)"
    with open_query(run) as connection:
        rows = rows_of(
            connection,
            "SELECT count(*) AS images, count(*) FILTER (WHERE matches) AS matching FROM "
            f"(SELECT {condition} AS matches FROM images)",
            told_as,
        )
        errors = rows_of(
            connection,
            "SELECT coalesce(error_kind, '') AS kind, count(*) AS images FROM images "
            f"WHERE status <> 'ok' AND {condition} GROUP BY kind ORDER BY images DESC, kind",
        )
        with sql_errors(told_as):
            found = select(
                connection, f"SELECT image_id FROM images WHERE status = 'ok' AND {condition}"
            )
            ids = [batch.column(0).to_numpy() for batch in found]
    return Selection(
        ids=np.sort(np.concatenate(ids)) if ids else np.empty(0, np.int64),
        errors={row["kind"]: row["images"] for row in errors},
        not_matching=rows[0]["images"] - rows[0]["matching"],
    )


def read_rows(run: RunReader, ids: np.ndarray, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of these images (ascending ids), with these columns and image_id.

    Raises:
        UnreadableFileError: a file of the run is damaged.
    """
    for part in run.parts:
        wanted = ids[np.searchsorted(ids, part.start) : np.searchsorted(ids, part.stop)]
        if not wanted.size:
            continue
        with run.open_part(part) as file:
            for group in range(file.num_row_groups):
                if not _may_hold(file.metadata.row_group(group), wanted):
                    continue
                rows = file.read_row_group(group, columns=["image_id", *columns])
                chosen = pc.is_in(rows.column("image_id"), value_set=pa.array(wanted))
                yield from rows.filter(chosen).to_pylist()


def _may_hold(group: pq.RowGroupMetaData, ids: np.ndarray) -> bool:
    """Whether the group's range of image_id has one of these; True where the file does not say."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "image_id" and column.is_stats_set:
            low, high = column.statistics.min, column.statistics.max
            return bool(np.searchsorted(ids, low) < np.searchsorted(ids, high, side="right"))
    return True
