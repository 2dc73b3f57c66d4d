"""SQL over a run, by DuckDB.

Local files DuckDB reads itself, eight times as fast as through Arrow: row groups are small here. Its
S3 reader, though, is an extension that it downloads on first use, which closed networks forbid, so
there Arrow reads, and takes DuckDB's projections and filters. Either way a query reads the columns it
names, and no masks unless it names `mask`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from dinoidd.errors import ConfigError
from dinoidd.output.reader import RunReader

ROWS_PER_BATCH = 1000
_WILDCARDS = set("*?[")  # DuckDB has no way to write them in a path
_LONGEST_REASON = 400  # characters; DuckDB lists every candidate of an overloaded function
_CONFIG = {
    "autoinstall_known_extensions": "false",  # never reach for the network
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # no Python variable is a table
    "temp_directory": tempfile.gettempdir(),  # not the working directory
}


@contextmanager
def open_query(run: RunReader) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the views `images` and `manifest`.

    Raises:
        OutputError: the run has no images yet.
    """
    connection = duckdb.connect(config=_CONFIG)
    try:
        connection.execute("SET enable_progress_bar = false")  # it would end up in the CSV
        _create_view(connection, "images", run.images())
        if run.manifest_files:
            _create_view(connection, "manifest", run.manifest())
        yield connection
    finally:
        connection.close()


def _create_view(
    connection: duckdb.DuckDBPyConnection, name: str, dataset: ds.FileSystemDataset
) -> None:
    local = isinstance(dataset.filesystem, pa.fs.LocalFileSystem)
    if not local or any(set(path) & _WILDCARDS for path in dataset.files):
        connection.register(name, dataset)
        return
    files = ", ".join("'" + path.replace("'", "''") + "'" for path in dataset.files)
    connection.execute(f"CREATE VIEW {name} AS FROM read_parquet([{files}])")


def select(
    connection: duckdb.DuckDBPyConnection, sql: str, told_as: str = "the query"
) -> pa.RecordBatchReader:
    """The result of one SELECT (FROM, WITH, DESCRIBE, SUMMARIZE, ...), read lazily.

    `told_as` is what messages call the SQL.

    Raises:
        ConfigError: it is not one statement that only reads, or DuckDB does not understand it.
    """
    with sql_errors(told_as):
        statements = connection.extract_statements(sql)
    kinds = [str(s.type).rpartition(".")[2] for s in statements]
    if kinds != ["SELECT"]:
        raise ConfigError(
            f"{told_as} holds {' and '.join(kinds) or 'no statement'}; give one SELECT: "
            "outputs are only read here"
        )
    with sql_errors(told_as):
        return connection.sql(sql).to_arrow_reader(ROWS_PER_BATCH)


def rows_of(
    connection: duckdb.DuckDBPyConnection, sql: str, told_as: str = "the query"
) -> list[dict[str, Any]]:
    """All rows of a small result."""
    with sql_errors(told_as):
        return select(connection, sql, told_as).read_all().to_pylist()


@contextmanager
def sql_errors(told_as: str = "the query") -> Iterator[None]:
    """DuckDB's complaint as one sentence; use it around reading a result, too."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        raise ConfigError(f"{told_as} fails: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    message = str(error).split("\nLINE ")[0].split("\n\tCandidate functions:")[0]
    text = " ".join(message.split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " ..."
