"""One file of `images/` written anew, as a stream: some groups of rows are in memory, never a file."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.output.schema import ROWS_PER_GROUP
from dinoidd.segment.chunk_file import RowWriter
from dinoidd.segment.output_file import temporary_folder
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store
from dinoidd.upkeep.recount import recount


def rewrite(
    images: Store,
    name: str,
    tables: Iterable[pa.Table],
    *,
    rows: tuple[int, int],
    schema: pa.Schema,
    worked: Iterable[Tally],
) -> None:
    """Write `name`, or replace it as a whole.

    Args:
        tables: its rows in order.
        rows: the range that they have to be, first and one after the last.
        worked: tallies whose seconds and bytes read go on to the new file.

    Raises:
        StorageError: `full`: the temporary folder's disk.
    """
    next_row, stop = rows
    with temporary_folder() as folder:
        local = folder / name
        with RowWriter(str(local), schema) as writer:
            for tally in worked:
                writer.tally.add(Tally(seconds=tally.seconds, bytes_read=tally.bytes_read))
            for table in regrouped(tables, ROWS_PER_GROUP):
                ids = table["image_id"].to_numpy()
                if not np.array_equal(ids, np.arange(next_row, next_row + len(ids))):
                    raise AssertionError(f"{name} would have rows {ids[:3]}..., not {next_row}")
                writer.write(table, recount(table))
                next_row += len(ids)
        if next_row != stop:
            raise AssertionError(f"{name} would end at row {next_row}, not {stop}")
        images.upload(local, name)


def row_groups(folder: Store, name: str) -> Iterator[pa.Table]:
    """A file's rows, a row group at a time."""
    with folder.open_read(name) as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, use_threads=False)


def regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows`, the last one fewer; nothing is copied."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= rows:
            joined = pa.concat_tables(waiting)
            whole = len(joined) // rows * rows
            yield from (joined.slice(start, rows) for start in range(0, whole, rows))
            waiting = [joined.slice(whole)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)
