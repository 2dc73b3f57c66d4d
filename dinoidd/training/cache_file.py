"""One file of the cache: observations in Arrow's IPC format, read where they lie on disk.

A row is one image and view. Each array is a column of bytes beside one of its shape; its dtype stands in
the column's metadata. Nothing is compressed, so that a mapped file is read without a copy. An image that
could not be used has a row too, with the reason in the place of arrays.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dinoidd.errors import StorageError
from dinoidd.storage import Store
from dinoidd.training.key_bytes import key_bytes, key_of
from dinoidd.training.observation import Observation

# Bytes, of IPC buffers. Every array is padded to it, so that views of the file are aligned.
_ALIGNMENT = 8
_ERRORS = b"dinoidd.errors"
_SHAPE = ".shape"


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """An image and view that could not be observed, and why."""

    key: str
    view: int
    reason: str


def cache_table(rows: Sequence[Observation | Unusable]) -> pa.Table:
    """Rows as an Arrow table; an array that no row has gets no column."""
    columns: dict[str, pa.Array] = {
        "key": _texts([row.key for row in rows]),
        "view": pa.array([row.view for row in rows], pa.int32()),
        "error": _texts([getattr(row, "reason", None) for row in rows]),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    all_arrays = [row.arrays if isinstance(row, Observation) else {} for row in rows]
    for name in dict.fromkeys(name for arrays in all_arrays for name in arrays):
        column = [arrays.get(name) for arrays in all_arrays]
        (dtype,) = {str(array.dtype) for array in column if array is not None}
        shapes = [None if array is None else list(array.shape) for array in column]
        columns[name] = pa.array([_padded(array) for array in column], pa.large_binary())
        columns[name + _SHAPE] = pa.array(shapes, pa.list_(pa.int32()))
        fields.append(pa.field(name, pa.large_binary(), metadata={"dtype": dtype}))
        fields.append(pa.field(name + _SHAPE, pa.list_(pa.int32())))
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _texts(values: Sequence[str | None]) -> pa.Array:
    """Keys, and sentences that name them, as bytes: Arrow's strings are UTF-8, file names not always."""
    return pa.array([None if v is None else key_bytes(v) for v in values], pa.binary())


def _texts_of(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """The way back; an earlier version's files have strings."""
    return [key_of(v) if isinstance(v, bytes) else v for v in column.to_pylist()]


def _padded(array: np.ndarray | None) -> bytes | None:
    if array is None:
        return None
    data = array.tobytes()
    return data + bytes(-len(data) % _ALIGNMENT)


def errors_of(table: pa.Table) -> dict[str, str]:
    """The images of a table that could not be used, and why."""
    pairs = zip(_texts_of(table["key"]), _texts_of(table["error"]), strict=True)
    return {key: error for key, error in pairs if key is not None and error is not None}


def write_cache_file(folder: Store, name: str, table: pa.Table) -> int:
    """Write a table of `cache_table`, whole or not at all; its size in bytes is returned."""
    metadata = {_ERRORS: json.dumps(errors_of(table)).encode()}
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema.with_metadata(metadata)) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    folder.write_bytes(name, buffer.getvalue())
    return len(buffer.getbuffer())


def read_errors(folder: Store, name: str) -> dict[str, str]:
    """What `errors_of` said of a file's table; its arrays are not read."""
    with folder.open_read(name) as file, pa.ipc.open_file(pa.PythonFile(file, "r")) as reader:
        return json.loads(reader.schema.metadata[_ERRORS])


class CacheFile:
    """A local cache file, mapped into memory.

    Raises:
        StorageError: it is missing, or no such file.
    """

    def __init__(self, path: Path) -> None:
        try:
            (self._rows,) = pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_batches()
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise StorageError("unreadable", f"{path} is no file of a cache: {error}") from error
        self._dtypes = {
            field.name: np.dtype(field.metadata[b"dtype"].decode())
            for field in self._rows.schema
            if field.metadata
        }

    def __len__(self) -> int:
        return self._rows.num_rows

    def read(self, row: int) -> Observation | Unusable:
        """A row; its arrays are read-only views of the file."""
        one = self._rows.slice(row, 1)
        (key,), (error,) = _texts_of(one.column("key")), _texts_of(one.column("error"))
        view = self._value("view", row).as_py()
        assert key is not None
        if error is not None:
            return Unusable(key=key, view=view, reason=error)
        arrays: dict[str, Any] = {name: self._array(name, row) for name in self._dtypes}
        return Observation(key=key, view=view, **arrays)

    def _array(self, name: str, row: int) -> np.ndarray | None:
        shape = self._value(name + _SHAPE, row).as_py()
        if shape is None:
            return None
        _, offsets, data = self._rows.column(name).buffers()  # a scalar would be a copy
        start = int(np.frombuffer(offsets, np.int64)[row])
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(data, self._dtypes[name], count, start).reshape(shape)

    def _value(self, name: str, row: int) -> Any:
        return self._rows.column(name)[row]
