"""Lists of URIs: text, CSV and Parquet, read as a stream."""

import csv
import io
import posixpath
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.errors import InputError
from dinoidd.storage import ObjectInfo, Store, shown

LIST_SUFFIXES = frozenset({".txt", ".csv", ".parquet"})
URI_COLUMNS = ("uri", "image", "path", "url")  # the first that is there counts
ROWS_PER_BATCH = 8192

Row = tuple[str | None, int | None, str | None]  # uri, size, etag


def list_entries(folder: Store, uri: str) -> Iterator[ObjectInfo]:
    """The entries of the list at `uri`, which lies in `folder`, in its order, duplicates included.

    `.txt`: one a line; blank lines and lines that begin with `#` are skipped, and blanks around an
    entry are dropped. `.csv` (with a header) and `.parquet`: a column `uri` (or `image`, `path`,
    `url`), and `size` and `etag` where there are such columns. Entries without a scheme or a
    leading slash are relative to the list's folder.
    """
    name = uri.rpartition("/")[2]
    kind = posixpath.splitext(name)[1].lower()
    rows = {".txt": _text_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[kind]
    with folder.open_read(name) as file:
        try:
            for number, (entry, size, etag) in enumerate(rows(file, uri), 1):
                if not entry:
                    raise InputError(f"entry {number:,} of {shown(uri)} has no URI")
                yield ObjectInfo(uri=_absolute(entry, folder, uri), size=size, etag=etag)
        except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            what = kind.removeprefix(".")
            raise InputError(f"{shown(uri)} cannot be read as a {what} list: {error}") from error


def _absolute(entry: str, folder: Store, uri: str) -> str:
    """An entry as a full address."""
    if "://" in entry or entry.startswith("/"):
        return entry
    if not {".", ".."}.isdisjoint(entry.split("/")):
        scheme, _, path = folder.uri.rpartition("://")
        path = posixpath.normpath(f"{path}/{entry}")
        if path.startswith(".."):
            raise InputError(f"{entry!r} in {shown(uri)} leads out of the bucket")
        return f"{scheme}://{path}" if scheme else path
    return folder.uri_of(entry)


def _text_rows(file: BinaryIO, uri: str) -> Iterator[Row]:
    for line in io.TextIOWrapper(file, "utf-8-sig"):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry, None, None


def _csv_rows(file: BinaryIO, uri: str) -> Iterator[Row]:
    rows = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
    header = [name.strip() for name in next(rows, [])]
    column, size, etag = _columns(header, uri)
    at, size_at, etag_at = (header.index(c) if c else None for c in (column, size, etag))
    assert at is not None
    for row in rows:
        if not row:
            continue  # csv calls a blank line an empty row
        cell = dict(enumerate(row))
        yield (
            cell.get(at),
            _size(cell.get(size_at) if size_at is not None else None, uri),
            (cell.get(etag_at) if etag_at is not None else None) or None,
        )


def _parquet_rows(file: BinaryIO, uri: str) -> Iterator[Row]:
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    column, size, etag = _columns(schema.names, uri)
    wanted = [name for name in (column, size, etag) if name]
    for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=wanted):
        nothing = [None] * len(batch)
        uris = _strings(batch.column(column), column, uri)
        sizes = batch.column(size).cast(pa.int64()).to_pylist() if size else nothing
        etags = _strings(batch.column(etag), etag, uri) if etag else nothing
        yield from zip(uris, sizes, etags, strict=True)


def _columns(names: list[str], uri: str) -> tuple[str, str | None, str | None]:
    """The names of the URI, size and etag columns."""
    found = next((name for name in URI_COLUMNS if name in names), None)
    if found is None:
        raise InputError(
            f"{shown(uri)} has no column {' or '.join(URI_COLUMNS)}: its columns are "
            f"{', '.join(names) or 'none'}"
        )
    return found, "size" if "size" in names else None, "etag" if "etag" in names else None


def _strings(column: pa.Array, name: str, uri: str) -> list[str | None]:
    """A text column, dictionary-encoded or not."""
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if not (pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)):
        raise InputError(f"column {name!r} of {shown(uri)} holds {plain.type}, not text")
    return plain.to_pylist()


def _size(cell: str | None, uri: str) -> int | None:
    if not cell:
        return None
    if not cell.strip().isdecimal():
        raise InputError(f"{cell!r} in column 'size' of {shown(uri)} is no number of bytes")
    return int(cell)
