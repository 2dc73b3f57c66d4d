"""Query results for people and programs: table, CSV, JSON, Parquet; in batches, never whole."""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TABLE_ROWS = 100
_CELL = 60  # characters
_NARROWEST = 8
_INT64 = pa.decimal128(38, 0)  # how Arrow sees DuckDB's HUGEINT, the type of every sum of integers
_PNG = b"\x89PNG"


def write_csv(reader: pa.RecordBatchReader, out: TextIO) -> None:
    """A header and a line a row; structs as JSON, bytes as their size, null as nothing."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(reader.schema.names)
    for row in _rows(reader):
        writer.writerow([_text(v) for v in row])


def write_json(reader: pa.RecordBatchReader, out: TextIO) -> None:
    """One array with an object a line; bytes as their size, NaN as null."""
    names = reader.schema.names
    separator = "[\n"
    for row in _rows(reader):
        record = dict(zip(names, row, strict=True))
        out.write(separator + json.dumps(record, ensure_ascii=False, default=str))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def write_parquet(reader: pa.RecordBatchReader, path: Path) -> None:
    """A Parquet file with everything, bytes too. Sums of integers become int64, not decimals."""
    schema = pa.schema([f.with_type(pa.int64()) if f.type == _INT64 else f for f in reader.schema])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def write_table(reader: pa.RecordBatchReader, out: TextIO, width: int) -> None:
    """Aligned columns, at most `width` characters wide where they can be made so; 100 rows."""
    rows = []
    for row in _rows(reader):
        rows.append(row)
        if len(rows) > TABLE_ROWS:
            break
    shown = [[_cell(v) for v in row] for row in rows[:TABLE_ROWS]]
    names = reader.schema.names
    widths = _widths([names, *shown], width)
    right = [all(isinstance(r[i], int | float | None) for r in rows) for i in range(len(names))]
    rule = ["─" * w for w in widths]
    for line in [names, rule, *shown]:
        cells = zip(line, widths, right, strict=True)
        out.write("  ".join(_fit(c, w, r) for c, w, r in cells).rstrip() + "\n")
    more = len(rows) > TABLE_ROWS
    count = (
        f"first {TABLE_ROWS} rows; --format csv gives all" if more else _plural(len(rows), "row")
    )
    out.write(f"({count})\n")


def _rows(reader: pa.RecordBatchReader) -> Iterator[list[Any]]:
    """Rows as Python values fit for printing."""
    for batch in reader:
        columns = [[_value(v) for v in column.to_pylist()] for column in batch.columns]
        yield from (list(row) for row in zip(*columns, strict=True))


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return _shortest(value)
    if isinstance(value, bytes):
        kind = "PNG" if value.startswith(_PNG) else "binary"
        return f"<{kind}, {len(value):,} bytes>"
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {k: _value(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_value(v) for v in value]
    return value


def _shortest(value: float) -> float | None:
    """A float32 that Arrow widened is written with its own digits: 0.9, not 0.8999999761581421."""
    if not math.isfinite(value):
        return None
    if abs(value) < 1e38 and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


def _text(value: Any) -> Any:
    """A value in CSV."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return " ".join(str(value).split())


def _widths(lines: Iterable[list[str]], total: int) -> list[int]:
    """Column widths: what the cells need up to 60, then the widest give way until `total` fits."""
    widths = [min(_CELL, max(map(len, column))) for column in zip(*lines, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > total and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _fit(text: str, width: int, right: bool) -> str:
    """Pad, or leave out the middle: in a URI both ends tell more."""
    if len(text) > width:
        tail = (width - 1) // 2
        text = text[: width - 1 - tail] + "…" + text[len(text) - tail :]
    return text.rjust(width) if right else text.ljust(width)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
