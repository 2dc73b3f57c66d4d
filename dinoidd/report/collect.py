"""Figures over all rows, by DuckDB, from the columns alone: no query reads a mask."""

from typing import Any

import duckdb

from dinoidd.classes import ClassTable
from dinoidd.exports.names import common_folder
from dinoidd.output.query import rows_of, sql_errors
from dinoidd.report.axes import FOLDER, SECONDS, choose_axes
from dinoidd.report.figures import BINS, ErrorKind, Figures, Measure
from dinoidd.report.sums import sum_up

_MEASURES = ("confidence", "entropy", "margin")
_EXAMPLES = 3  # of a kind of error
_MOST = 12  # kinds of errors, notes, sizes
# Row groups are small and many, so a scan costs more than what it computes: two scans, this one into
# a table (which DuckDB keeps on disk where it is large), and that of the pixels.
_FACTS = f"""
CREATE OR REPLACE TEMP TABLE facts AS
SELECT image_id, status, error_kind, note, width, height, confidence, entropy, margin,
    {FOLDER} AS folder, {SECONDS} AS seconds, CASE WHEN status <> 'ok' THEN uri END AS uri,
    CASE WHEN status <> 'ok' THEN error END AS error
FROM images
"""


def collect(connection: duckdb.DuckDBPyConnection, table: ClassTable) -> Figures:
    """The figures of the view `images`."""
    with sql_errors():
        connection.execute(_FACTS)
    totals = rows_of(
        connection,
        "SELECT count(*) AS images, count(*) FILTER (status = 'ok') AS ok, min(folder) AS low, "
        "max(folder) AS high FROM facts",
    )[0]
    root = common_folder(totals["low"] or "", totals["high"] or "")
    sums = sum_up(connection, table, choose_axes(connection, totals["images"]), root)
    return Figures(
        images=totals["images"],
        ok=totals["ok"],
        errors=_errors(connection),
        notes=_notes(connection),
        sizes=_sizes(connection),
        classes=sums.classes,
        measures=_measures(connection) if totals["ok"] else [],
        folders=sums.folders,
        times=sums.times,
        root=root,
    )


def _errors(connection: duckdb.DuckDBPyConnection) -> list[ErrorKind]:
    rows = rows_of(
        connection,
        "SELECT coalesce(error_kind, 'unknown') AS kind, count(*) AS images, "
        f"min_by({{'uri': uri, 'error': coalesce(error, '')}}, image_id, {_EXAMPLES}) AS examples "
        f"FROM facts WHERE status <> 'ok' GROUP BY kind ORDER BY images DESC, kind LIMIT {_MOST}",
    )
    return [
        ErrorKind(
            kind=row["kind"],
            images=row["images"],
            examples=[(e["uri"], e["error"]) for e in row["examples"]],
        )
        for row in rows
    ]


def _notes(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    rows = rows_of(
        connection,
        "SELECT note, count(*) AS images FROM facts WHERE note IS NOT NULL "
        f"GROUP BY note ORDER BY images DESC, note LIMIT {_MOST}",
    )
    return [(row["note"], row["images"]) for row in rows]


def _sizes(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int, int]]:
    rows = rows_of(
        connection,
        "SELECT width, height, count(*) AS images FROM facts WHERE status = 'ok' "
        f"GROUP BY ALL ORDER BY images DESC, width, height LIMIT {_MOST}",
    )
    return [(row["width"], row["height"], row["images"]) for row in rows]


def _measures(connection: duckdb.DuckDBPyConnection) -> list[Measure]:
    columns = ", ".join(
        f"avg({m}) AS {m}_mean, approx_quantile({m}, [0.05, 0.5, 0.95]) AS {m}_quantiles"
        for m in _MEASURES
    )
    row = rows_of(connection, f"SELECT {columns} FROM facts WHERE status = 'ok'")[0]
    return [
        Measure(
            name=name,
            mean=row[f"{name}_mean"],
            quantiles=tuple(row[f"{name}_quantiles"]),
            bins=_bins(connection, name),
        )
        for name in _MEASURES
        if row[f"{name}_mean"] is not None
    ]


def _bins(connection: duckdb.DuckDBPyConnection, name: str) -> list[int]:
    rows: list[dict[str, Any]] = rows_of(
        connection,
        f"SELECT least(greatest(floor({name} * {BINS}), 0), {BINS - 1})::INTEGER AS bin, "
        f"count(*) AS images FROM facts WHERE status = 'ok' AND {name} IS NOT NULL GROUP BY bin",
    )
    found = {row["bin"]: row["images"] for row in rows}
    return [found.get(i, 0) for i in range(BINS)]
