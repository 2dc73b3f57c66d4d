"""Chunks of one range into the file that readers see."""

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from dinoidd.errors import StorageError
from dinoidd.output.schema import METADATA_RUN_ID
from dinoidd.segment.chunk_file import RowWriter, read_chunk, read_footer
from dinoidd.segment.layout import Layout
from dinoidd.storage import Store

_TEMPORARY = "dinoidd-merge-"  # and the number of the process


def merge_file(
    file: int, *, layout: Layout, staging: Store, images: Store, schema: pa.Schema
) -> None:
    """Write one file of `images/` from its chunks, then remove them; done twice, it is the same file.

    A file of another run under that name is replaced.
    """
    name = layout.file_name(file)
    chunks = [layout.chunk_name(c) for c in layout.chunks_of(file)]
    if not is_there(images, name, schema):
        with temporary_folder() as folder:
            local = folder / name
            try:
                _concatenate(chunks, staging, local, schema, layout.file_range(file))
                images.upload(local, name)
            except StorageError as error:
                # a task of a driver that was killed may live on, and have just done the same
                if error.kind != "missing" or not is_there(images, name, schema):
                    raise
    for chunk in chunks:
        staging.remove(chunk)


def is_there(images: Store, name: str, schema: pa.Schema) -> bool:
    """Whether a file of the schema's run has that name; names appear whole or not at all."""
    run_id = schema.metadata[METADATA_RUN_ID].decode()
    return images.exists(name) and read_footer(images, name)[0] == run_id


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder on this node's own disk, without those of killed tasks. StorageError: that is full."""
    _remove_left_folders()
    try:
        with tempfile.TemporaryDirectory(prefix=f"{_TEMPORARY}{os.getpid()}-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"the temporary folder {tempfile.gettempdir()} of {platform.node()} is full"
        what = f"{where}: free some room or set TMPDIR, and run the same command again"
        raise StorageError("full", what) from error


def _remove_left_folders() -> None:
    """Those of tasks that were killed: a name tells the process that made it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*-*"):
        made_by = folder.name.removeprefix(_TEMPORARY).partition("-")[0]
        if made_by.isdecimal() and not _runs(int(made_by)):
            shutil.rmtree(folder, ignore_errors=True)  # another task may be at it


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _concatenate(
    chunks: list[str], staging: Store, local: Path, schema: pa.Schema, rows: tuple[int, int]
) -> None:
    """One chunk in memory at a time; the rows have to be exactly those of the range."""
    next_row, stop = rows
    with RowWriter(str(local), schema) as writer:
        for chunk in chunks:
            table, tally = read_chunk(staging, chunk, schema)
            ids = table.column("image_id").to_numpy()
            if not np.array_equal(ids, np.arange(next_row, next_row + len(ids))):
                raise AssertionError(
                    f"{staging.uri_of(chunk)} has rows {ids[:3]}..., not {next_row}"
                )
            writer.write(table, tally)
            next_row += len(ids)
        if next_row != stop:
            raise AssertionError(f"{local.name} would end at row {next_row}, not {stop}")
