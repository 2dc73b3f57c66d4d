"""Which images of a listing a run takes: those that a condition fits, and of these a sample.

Both are streams. A sample cannot be drawn before the listing has ended, so until then the candidates
wait in a temporary Parquet file of this machine (about 20 bytes an image), never in memory.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.errors import ConfigError, InputError
from dinoidd.output.query import select, sql_errors
from dinoidd.storage import ObjectInfo

_ROWS = 8_192  # of a batch
_SCHEMA = pa.schema([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())])
_CONFIG = {
    "autoinstall_known_extensions": "false",  # never reach for the network
    "autoload_known_extensions": "false",
    "enable_external_access": "false",  # the condition reads the listing, and no file
    "python_enable_replacements": "false",
    "threads": "1",
}
_NAME = r"regexp_extract(uri, '([^/]*)$', 1)"
# What a condition may name. They are computed only where they are named.
COLUMNS = {
    "uri": "uri",
    "size": "size",
    "etag": "etag",
    "name": _NAME,
    "suffix": rf"lower(regexp_extract({_NAME}, '[^.](\.[^.]*)$', 1))",
    "folder": r"regexp_replace(uri, '/[^/]*$', '')",
}
Item = TypeVar("Item")
_CANDIDATES = ", ".join(f"{sql} AS {name}" for name, sql in COLUMNS.items())
_CLAUSES = ("modifiers", "group_expressions", "having", "sample", "qualify")
_FITTING = "SELECT place FROM (SELECT place, {columns} FROM listing) WHERE (\n{condition}\n)"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A part of a listing; everything where nothing is set."""

    where: str | None = None  # a condition in SQL over COLUMNS
    sample: int | None = None  # how many images, drawn uniformly from those that fit
    seed: int = 0  # of the sample

    def to_dict(self) -> dict[str, str | int]:
        """What is set, as the manifest and the run's identity have it."""
        values: dict[str, str | int] = {} if self.where is None else {"where": self.where}
        drawn = {} if self.sample is None else {"sample": self.sample, "sample_seed": self.seed}
        return values | drawn

    def check(self) -> None:
        """Raise ConfigError where the condition makes no sense, before anything is listed."""
        if self.sample is not None and self.sample < 1:
            raise ConfigError(f"--sample {self.sample}: at least 1 image is needed")
        if self.where is not None:
            with _condition(self.where) as fitting:
                fitting([])


@dataclass
class Listed:
    """How many images there were before a selection, known when the listing has ended."""

    rows: int = 0
    bytes: int = 0  # of those whose size is known

    def counted(self, images: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        for image in images:
            self.rows += 1
            self.bytes += image.size or 0
            yield image


def select_images(
    images: Iterable[ObjectInfo],
    selection: Selection,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ObjectInfo]:
    """The images that are selected, in the order in which they are listed.

    Args:
        progress: of a sample, which lists everything before it gives anything: told the images so far.

    Raises:
        ConfigError: the condition makes no sense.
        InputError: no image fits it.
    """
    chosen = iter(images)
    if selection.where is not None:
        chosen = _fitting(chosen, selection.where)
    if selection.sample is not None:
        chosen = _sampled(chosen, selection.sample, selection.seed, progress)
    yield from chosen


def _fitting(images: Iterator[ObjectInfo], where: str) -> Iterator[ObjectInfo]:
    found = listed = 0
    with _condition(where) as fitting:
        while batch := list(islice(images, _ROWS)):
            listed += len(batch)
            places = fitting(batch)
            found += len(places)
            yield from (batch[place] for place in places)
    if not found:
        raise InputError(f"none of the {listed:,} images fits --where {where!r}")


@contextmanager
def _condition(where: str) -> Iterator[Callable[[list[ObjectInfo]], list[int]]]:
    """Tells the places in a batch of the images that fit."""
    connection = duckdb.connect(config=_CONFIG)
    sql = _FITTING.format(columns=_CANDIDATES, condition=where)

    def fitting(batch: list[ObjectInfo]) -> list[int]:
        places = pa.array(range(len(batch)), pa.int64())
        connection.register("listing", _table(batch).append_column("place", places))
        with sql_errors(told_as):
            rows = select(connection, sql, told_as).read_all()
        return sorted(rows["place"].to_pylist())

    told_as = f"--where {where!r} (columns: {', '.join(COLUMNS)})"
    try:
        _refuse_more(connection, sql, where)
        yield fitting
    finally:
        connection.close()


def _refuse_more(connection: duckdb.DuckDBPyConnection, sql: str, where: str) -> None:
    """Refuse what would see one batch of the listing for the whole of it."""
    (row,) = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()
    nodes = [s["node"] for s in json.loads(row[0]).get("statements", [])]
    if any('"SUBQUERY"' in json.dumps(node.get("where_clause")) for node in nodes):
        raise ConfigError(
            f"--where {where!r} holds a SELECT: a condition looks at one image at a time"
        )
    if not where.strip() or any(node["type"] != "SELECT_NODE" or _more(node) for node in nodes):
        raise ConfigError(f"--where {where!r} is not one condition, as after WHERE in SQL")


def _more(node: dict[str, Any]) -> bool:
    """Whether a query has more than a condition: somebody closed our bracket."""
    return any(node.get(name) for name in _CLAUSES)


def _sampled(
    images: Iterator[ObjectInfo], wanted: int, seed: int, progress: Callable[[int], None] | None
) -> Iterator[ObjectInfo]:
    with tempfile.TemporaryDirectory(prefix="dinoidd-") as folder:
        path = Path(folder) / "listing.parquet"
        rows = _spool(images, path, progress)
        yield from sampled(_spooled(path), rows, wanted, seed)


def sampled(items: Iterable[Item], rows: int, wanted: int, seed: int) -> Iterator[Item]:
    """`wanted` of `rows` items, each set of them as likely as any other, in their order.

    Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S: an item is taken with the
    probability (still wanted) / (still to come).
    """
    draw = random.Random(seed).random
    wanted = min(wanted, rows)
    for to_come, item in zip(range(rows, 0, -1), items, strict=False):
        if to_come * draw() < wanted:
            wanted -= 1
            yield item
        if not wanted:
            return


def _spool(images: Iterator[ObjectInfo], path: Path, progress: Callable[[int], None] | None) -> int:
    rows = 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while batch := list(islice(images, _ROWS)):
            writer.write_table(_table(batch))
            rows += len(batch)
            if progress:
                progress(rows)
    return rows


def _spooled(path: Path) -> Iterator[ObjectInfo]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS):
            columns = (batch.column(name).to_pylist() for name in _SCHEMA.names)
            for uri, size, etag in zip(*columns, strict=True):
                yield ObjectInfo(uri=uri, size=size, etag=etag)


def _table(batch: list[ObjectInfo]) -> pa.Table:
    columns = {name: [getattr(image, name) for image in batch] for name in _SCHEMA.names}
    return pa.table(columns, schema=_SCHEMA)
