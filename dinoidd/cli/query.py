"""`dinoidd query OUTPUT SQL`: ask a run."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet")
EXAMPLES = """\
tables: images (a row an image: see `DESCRIBE images`) and manifest

examples:
  dinoidd query OUTPUT "SELECT status, error_kind, count(*) FROM images GROUP BY ALL"
  dinoidd query OUTPUT "SELECT uri, fraction.person FROM images ORDER BY 2 DESC LIMIT 10"
  dinoidd query OUTPUT "SELECT uri FROM images WHERE confidence < 0.6" --to unsure.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument(
        "sql", metavar="SQL", help="one SELECT, in DuckDB's SQL; - reads it from stdin"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="default: what the suffix of --to says, else a table on a terminal and csv in a pipe; "
        "a table shows 100 rows, the others all; only parquet holds the mask's bytes",
    )
    parser.add_argument("--to", metavar="FILE", type=Path, help="write to this local file")
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    form = _format(args.format, args.to)
    sql = sys.stdin.read() if args.sql == "-" else args.sql

    from dinoidd.output.query import open_query, select, sql_errors
    from dinoidd.output.reader import RunReader

    reader = RunReader(args.output, storage_options(args))
    with open_query(reader) as connection, sql_errors():
        result = select(connection, sql)
        if not reader.finished:
            print(reader.progress_note(), file=sys.stderr)
        _write(result, form, args.to)
    return 0


def _format(form: str | None, to: Path | None) -> str:
    """What to write: asked for, or by the file's suffix, or by who reads it."""
    if form is None and to is not None:
        form = to.suffix.lstrip(".").lower()
        if form not in FORMATS:
            raise ConfigError(f"--to {to}: add --format, or a suffix .csv, .json or .parquet")
    if form == "parquet" and to is None:
        raise ConfigError("--format parquet is for files: add --to FILE.parquet")
    return form or ("table" if sys.stdout.isatty() else "csv")


def _write(result: "pa.RecordBatchReader", form: str, to: Path | None) -> None:
    if to is None:
        _write_text(result, form, sys.stdout)
        return
    partial = to.with_name(f".{to.name}.partial")  # nobody finds half a result under its name
    try:
        _write_file(result, form, partial)
        partial.replace(to)
    except OSError as error:
        raise OutputError(f"{to} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_file(result: "pa.RecordBatchReader", form: str, path: Path) -> None:
    from dinoidd.output.formats import write_parquet

    if form == "parquet":
        write_parquet(result, path)
        return
    with path.open("w", encoding="utf-8", newline="") as out:
        _write_text(result, form, out)


def _write_text(result: "pa.RecordBatchReader", form: str, out: TextIO) -> None:
    from dinoidd.output.formats import write_csv, write_json, write_table

    if form == "table":
        write_table(result, out, shutil.get_terminal_size(fallback=(160, 24)).columns)
    else:
        {"csv": write_csv, "json": write_json}[form](result, out)
