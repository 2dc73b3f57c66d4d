"""Which rows of two runs are about the same image: by address, whatever the runs' order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from dinoidd.errors import ConfigError, OutputError
from dinoidd.output.query import open_query, rows_of, select, sql_errors
from dinoidd.output.reader import RunReader

NAMED = 20  # addresses of images that are left out, of each kind
# One row an address; where a list named an image twice, its masks are the same and the first counts.
# The join spills to disk where a run is too large for the memory it is given.
_PAIRS = """
CREATE TEMP TABLE pairs AS
WITH a AS (SELECT uri, min(image_id) AS id, arg_min(status = 'ok', image_id) AS ok
           FROM images GROUP BY uri),
     b AS (SELECT uri, min(image_id) AS id, arg_min(status = 'ok', image_id) AS ok
           FROM other GROUP BY uri)
SELECT uri, a.id AS a_id, b.id AS b_id,
       CASE WHEN b.id IS NULL THEN 'only_in_a' WHEN a.id IS NULL THEN 'only_in_b'
            WHEN NOT (a.ok OR b.ok) THEN 'error_in_both' WHEN NOT a.ok THEN 'error_in_a'
            WHEN NOT b.ok THEN 'error_in_b' ELSE 'both' END AS kind
FROM a FULL JOIN b USING (uri)
"""
LEFT_OUT = ("only_in_a", "only_in_b", "error_in_a", "error_in_b", "error_in_both")
_MEMORY = "2GB"


@dataclass(frozen=True)
class Pair:
    """An image with a mask in both runs: its address, and its ids there."""

    uri: str
    a_id: int
    b_id: int


class Matching:
    """The images of two runs; make one with `match`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        found = rows_of(connection, "SELECT kind, count(*) AS images FROM pairs GROUP BY kind")
        counts = {row["kind"]: int(row["images"]) for row in found}
        self.both = counts.pop("both", 0)
        self.left_out = {kind: counts.get(kind, 0) for kind in LEFT_OUT}  # images by reason

    def named(self) -> dict[str, list[str]]:
        """The first addresses of each kind of images that are left out."""
        return {kind: self._uris(kind) for kind, count in self.left_out.items() if count}

    def pairs(self) -> Iterator[list[Pair]]:
        """The images with a mask in both runs, in A's order, in batches."""
        sql = "SELECT uri, a_id, b_id FROM pairs WHERE kind = 'both' ORDER BY a_id"
        with sql_errors("matching the runs"):
            for batch in select(self._connection, sql):
                yield [Pair(**row) for row in batch.to_pylist()]

    def _uris(self, kind: str) -> list[str]:
        sql = f"SELECT uri FROM pairs WHERE kind = '{kind}' ORDER BY coalesce(a_id, b_id) LIMIT {NAMED}"
        return [row["uri"] for row in rows_of(self._connection, sql)]


@contextmanager
def match(a: RunReader, b: RunReader) -> Iterator[Matching]:
    """Match two runs by address.

    Raises:
        ConfigError: their class tables differ.
        OutputError: a run has no images yet, or they have none in common.
    """
    _check_classes(a, b)
    with open_query(a) as connection:
        connection.register("other", b.images())
        with sql_errors("matching the runs"):
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute(_PAIRS)
        matching = Matching(connection)
        named = matching.named()
        if not matching.both and len(named) == 2 and {"only_in_a", "only_in_b"} == set(named):
            raise OutputError(
                f"the runs have no image in common: A has {named['only_in_a'][0]} and others, B has "
                f"{named['only_in_b'][0]} and others; images are matched by address"
            )
        yield matching


def _check_classes(a: RunReader, b: RunReader) -> None:
    if a.table == b.table:
        return
    pairs = zip(a.table.classes, b.table.classes, strict=False)
    differing = [
        f"class {i} is {x.name!r} {x.color} in A and {y.name!r} {y.color} in B"
        for i, (x, y) in enumerate(pairs)
        if x != y
    ]
    what = differing[0] if differing else "the rest agrees"
    raise ConfigError(
        f"the runs have different classes, so their masks cannot be compared: A has '{a.table.name}' "
        f"({len(a.table)}), B has '{b.table.name}' ({len(b.table)}); {what}"
    )
