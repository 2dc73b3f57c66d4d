"""Finished rows, as a Parquet file of the output contract with its tally in the file's metadata."""

import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.classes import ClassTable
from dinoidd.errors import StorageError
from dinoidd.output.mask import count_pixels, encode_mask
from dinoidd.output.schema import METADATA_RUN_ID, ROWS_PER_GROUP, class_table_of
from dinoidd.segment.packed_classes import unpack_classes
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

_METADATA_TALLY = b"dinoidd.tally"
_MEASURED = ("height", "width", "confidence", "entropy", "margin")


def write_chunk(folder: Store, name: str, table: pa.Table, schema: pa.Schema) -> Tally:
    """Encode the masks of segmented rows, and write them under `name`, whole or not at all.

    `bytes_written` of what is returned is the file's size.
    """
    classes = class_table_of(schema)
    tally = Tally()
    for kind in ("fetch", "decode", "model"):
        seconds = table.column(f"{kind}_seconds").to_numpy(zero_copy_only=False)
        tally.seconds[kind] += float(np.nansum(seconds))
    tally.bytes_read = int(np.nansum(table.column("bytes").to_numpy(zero_copy_only=False)))
    started = time.perf_counter()
    masks = table.column("classes").combine_chunks()
    rows = table.drop_columns(["classes"]).to_pylist()
    finished = [_finished(r, m, classes, tally) for r, m in zip(rows, masks, strict=True)]
    tally.seconds["encode"] += time.perf_counter() - started
    buffer = pa.BufferOutputStream()
    with RowWriter(buffer, schema) as writer:
        writer.write(pa.Table.from_pylist(finished, schema=schema), tally)
    started = time.perf_counter()
    data = buffer.getvalue().to_pybytes()
    folder.write_bytes(name, data)
    writer.tally.seconds["write"] += time.perf_counter() - started
    writer.tally.bytes_written = len(data)
    return writer.tally


def _finished(
    row: dict[str, Any], classes: pa.LargeBinaryScalar, table: ClassTable, tally: Tally
) -> dict[str, Any]:
    """One row of the contract, counted."""
    tally.images += 1
    result = {name: row[name] for name in ("image_id", "uri", "error_kind", "error", "note")}
    if row["error_kind"] is not None:
        tally.errors[row["error_kind"]] += 1
        return result | {"status": "error", "height": row["height"], "width": row["width"]}
    tally.ok += 1
    shape = (row["height"], row["width"])
    classes_HW = unpack_classes(classes.as_buffer(), shape)
    pixels = dict(zip(table.fields, count_pixels(classes_HW, len(table)), strict=True))
    tally.pixels.update(pixels)
    tally.images_with.update(field for field, count in pixels.items() if count)
    return result | {
        "status": "ok",
        "mask": {"bytes": encode_mask(classes_HW, table), "path": None},
        "pixels": pixels,
        "fraction": {field: count / classes_HW.size for field, count in pixels.items()},
        **{name: row[name] for name in _MEASURED},
    }


class RowWriter:
    """Writes rows of the contract to a Parquet file; their tallies add up in its metadata.

    The seconds that writing takes are counted as `write`.
    """

    def __init__(self, where: Any, schema: pa.Schema) -> None:
        columns = _leaf_columns(schema)
        is_mask = {c: c.startswith("mask.") for c in columns}
        self.tally = Tally()
        self._parquet = pq.ParquetWriter(
            where,
            schema,
            # PNG does not shrink any more, and its minimum and maximum would bloat the footer
            compression={c: "none" if is_mask[c] else "zstd" for c in columns},
            write_statistics=[c for c in columns if not is_mask[c]],
            use_dictionary=["status", "error_kind", "error", "note"],
        )

    def write(self, table: pa.Table, tally: Tally) -> None:
        started = time.perf_counter()
        self._parquet.write_table(table, row_group_size=ROWS_PER_GROUP)
        self.tally.add(tally)
        self.tally.seconds["write"] += time.perf_counter() - started

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            tally = json.dumps(self.tally.to_dict())
            self._parquet.add_key_value_metadata({_METADATA_TALLY.decode(): tally})
        self._parquet.close()


def _leaf_columns(schema: pa.Schema) -> list[str]:
    def leaves(path: str, kind: pa.DataType) -> list[str]:
        if not pa.types.is_struct(kind):
            return [path]
        return [leaf for field in kind for leaf in leaves(f"{path}.{field.name}", field.type)]

    return [leaf for field in schema for leaf in leaves(field.name, field.type)]


def read_footer(folder: Store, name: str) -> tuple[str, Tally]:
    """A file's run id and tally; `bytes_written` is the file's size.

    Raises:
        StorageError: `damaged`: it is no whole Parquet file, or none that a run wrote.
    """
    advice = "remove it, and run the same command again"
    with folder.open_read(name) as file, _whole(folder.uri_of(name), advice):
        metadata = pq.read_metadata(file).metadata
        tally = _tally_in(metadata, file.seek(0, os.SEEK_END))
        return metadata[METADATA_RUN_ID].decode(), tally


def read_chunk(folder: Store, name: str, schema: pa.Schema) -> tuple[pa.Table, Tally]:
    """A file's rows and tally, all in memory.

    Raises:
        StorageError: `damaged`: see `read_footer`. The file is removed, so that its name does not
            count as done any more.
    """
    data = folder.read_bytes(name)
    advice = "it is removed; run the same command again, which does its images anew"
    try:
        with _whole(folder.uri_of(name), advice):
            table = pq.read_table(io.BytesIO(data), schema=schema)
            return table, _tally_in(pq.read_metadata(io.BytesIO(data)).metadata, len(data))
    except StorageError:
        folder.remove(name)
        raise


def _tally_in(metadata: dict[bytes, bytes], size: int) -> Tally:
    tally = Tally.from_dict(json.loads(metadata[_METADATA_TALLY]))
    tally.bytes_written = size
    return tally


@contextmanager
def _whole(uri: str, advice: str) -> Iterator[None]:
    """Turn what reading a file raises that is damaged or not ours into a StorageError."""
    try:
        yield
    except MemoryError:  # pa.ArrowMemoryError is one too: the file may be whole
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and not _is_of_arrow(error):
            raise  # of the store
        reason = " ".join(str(error).split()) or type(error).__name__
        what = f"{uri} is damaged, or no file that a run wrote ({reason})"
        raise StorageError("damaged", f"{what}: {advice}") from error


def _is_of_arrow(error: OSError) -> bool:
    """Arrow's own are plain and have no number; the system's and the network's are of a kind."""
    return type(error) is OSError and error.errno is None and error.__cause__ is None
