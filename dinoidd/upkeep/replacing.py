"""Rows of a run replaced by those of a retry, a file at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.output.schema import METADATA_RUN_ID
from dinoidd.segment.chunk_file import read_footer
from dinoidd.segment.layout import Layout
from dinoidd.storage import Store
from dinoidd.upkeep.rewrite import rewrite, row_groups

METADATA_RETRY = b"dinoidd.retry"  # run id of the retry that a file's newest rows come from


@dataclass(frozen=True, kw_only=True)
class NewRows:
    """Rows of a retry: its row `first + i` is the run's image `ids[i]`."""

    images: Store  # of the retry
    layout: Layout
    run_id: str
    first: int
    ids: np.ndarray  # int64, ascending

    def tables(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """All of them in order, numbered and described as the run's own."""
        start, stop = self.first, self.first + len(self.ids)
        size = self.layout.rows_per_file
        for file in range(start // size, -(-stop // size)):
            row = self.layout.file_range(file)[0]
            for table in row_groups(self.images, self.layout.file_name(file)):
                low, high = max(start, row), min(stop, row + len(table))
                if low < high:
                    yield self._renumbered(table.slice(low - row, high - low), low, schema)
                row += len(table)

    def _renumbered(self, table: pa.Table, row: int, schema: pa.Schema) -> pa.Table:
        numbers = table["image_id"].to_numpy()
        if not np.array_equal(numbers, np.arange(row, row + len(table))):
            raise AssertionError(f"{self.images.uri} has rows {numbers[:3]}..., not {row}")
        ids = self.ids[row - self.first : row - self.first + len(table)]
        place = table.schema.get_field_index("image_id")
        return table.set_column(place, schema.field("image_id"), pa.array(ids))


def replace_rows(
    file: int, *, layout: Layout, images: Store, schema: pa.Schema, new: NewRows
) -> None:
    """Write a file of the run again, with the new rows; done twice, it is the same file."""
    name = layout.file_name(file)
    if _retry_of(images, name) == new.run_id:
        return
    run_id, before = read_footer(images, name)
    if run_id != schema.metadata[METADATA_RUN_ID].decode():
        raise AssertionError(f"{images.uri_of(name)} is of another run, {run_id}")
    marked = schema.with_metadata(schema.metadata | {METADATA_RETRY: new.run_id.encode()})
    rewrite(
        images,
        name,
        _merged(row_groups(images, name), new, schema),
        rows=layout.file_range(file),
        schema=marked,
        worked=[before],
    )


def _retry_of(images: Store, name: str) -> str | None:
    with images.open_read(name) as file:
        metadata = pq.read_metadata(file).metadata or {}
    return metadata.get(METADATA_RETRY, b"").decode() or None


def _merged(old: Iterator[pa.Table], new: NewRows, schema: pa.Schema) -> Iterator[pa.Table]:
    """The old tables, some of their rows exchanged; both come by image_id."""
    replacing = _Taken(new.tables(schema))
    for table in old:
        plain = table.replace_schema_metadata(None)
        places = np.flatnonzero(np.isin(plain["image_id"].to_numpy(), new.ids))
        yield _exchanged(plain, places, replacing.take(len(places))) if len(places) else plain


def _exchanged(table: pa.Table, places: np.ndarray, rows: pa.Table) -> pa.Table:
    """`table` with its rows at `places` exchanged for `rows`; no mask is copied."""
    pieces, kept = [], 0
    for i, place in enumerate(places.tolist()):
        pieces += [table.slice(kept, place - kept), rows.slice(i, 1)]
        kept = place + 1
    return pa.concat_tables([*pieces, table.slice(kept)])


class _Taken:
    """Tables of any length, taken a number of rows at a time."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._waiting: list[pa.Table] = []

    def take(self, count: int) -> pa.Table:
        while sum(map(len, self._waiting)) < count:
            self._waiting.append(next(self._tables).replace_schema_metadata(None))
        joined = pa.concat_tables(self._waiting)
        self._waiting = [joined.slice(count)]
        return joined.slice(0, count)
