"""Small files of a finished run made into large ones.

Every large file takes the same number of small ones, so what each holds still follows from the layout
in run.json. A journal is written first, and the success mark is away until the end: whoever respects
it never meets a row twice. Large files are written whole before the small ones in them are removed,
so a compaction that was stopped anywhere is finished by the same command.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dinoidd.errors import ConfigError, OutputError
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import logger
from dinoidd.output.reader import COMPACTION
from dinoidd.output.schema import images_schema
from dinoidd.segment import cluster
from dinoidd.segment.chunk_file import read_footer
from dinoidd.segment.layout import Layout
from dinoidd.segment.lock import Lock, exclusive
from dinoidd.segment.output_file import is_there
from dinoidd.segment.preparation import IMAGES, remove_half_written
from dinoidd.segment.run_record import SUCCESS, RunRecord, now, write_record
from dinoidd.segment.summary import outcome, size_text
from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions, Store
from dinoidd.upkeep.finished import (
    known_run,
    refuse_half_retried,
    refuse_unfinished,
    tally_of,
)
from dinoidd.upkeep.rewrite import rewrite, row_groups
from dinoidd.upkeep.tasks import run_tasks

FILE_SIZE = 256_000_000


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """Files of `images/`, before and after, and their bytes after."""

    files_before: int
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What a compaction has begun to do."""

    run_id: str
    begun: str
    old: Layout
    new: Layout

    def write(self, output: Store) -> None:
        output.write_bytes(COMPACTION, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, output: Store) -> "Journal | None":
        if not output.exists(COMPACTION):
            return None
        values = json.loads(output.read_bytes(COMPACTION))
        layouts = {name: Layout(**values[name]) for name in ("old", "new")}
        return cls(**values | layouts)


def compact(
    uri: str,
    *,
    file_size: int = FILE_SIZE,
    storage: StorageOptions = DEFAULT_OPTIONS,
    address: str | None = None,
) -> Compacted:
    """Make the files of a finished run about `file_size` bytes large, none over twice that.

    Raises:
        DinoiddError: there is no finished run, or another session works on it.
    """
    if file_size < 1:
        raise ConfigError(f"--file-size {file_size}: at least 1 byte is needed")
    output = Store.open(uri, storage)
    known_run(output)
    with terminated_as_interrupted(), exclusive(output, "compact") as lock:
        remove_half_written(output)
        record = known_run(output)
        journal = Journal.read(output)
        if journal is not None and journal.run_id == record.run_id:
            logger.info(f"finishing the compaction that was begun {journal.begun}")
        else:
            refuse_unfinished(output)
            refuse_half_retried(output)
            journal = _planned(output, record, file_size)
        if journal.old != journal.new:
            cluster.connect(address)
            with terminated_as_interrupted():
                record = _carry_out(output, record, journal, lock)
        size = int(record.summary["bytes_written"])
        return Compacted(files_before=journal.old.files, files=journal.new.files, bytes=size)


def _planned(output: Store, record: RunRecord, file_size: int) -> Journal:
    new = enlarged(record.layout, _sizes(output, record.layout), file_size)
    return Journal(run_id=record.run_id, begun=now(), old=record.layout, new=new)


def enlarged(layout: Layout, sizes: np.ndarray, file_size: int) -> Layout:
    """The layout whose files come nearest to `file_size` on average, none over twice that.

    Args:
        sizes: bytes of the layout's files, int64 [files].
    """
    together = min(round(file_size / sizes.mean()), layout.files)
    while together > 1:
        joined = np.add.reduceat(sizes, np.arange(0, layout.files, together))
        if joined.max() <= 2 * file_size:
            break
        together -= 1
    return replace(layout, rows_per_file=layout.rows_per_file * max(1, together))


def _sizes(output: Store, layout: Layout) -> np.ndarray:
    """Bytes of each file, from one listing. Raises OutputError where one is missing."""
    sizes = np.zeros(layout.files, np.int64)
    images = output.child(IMAGES)
    places = {layout.file_name(file): file for file in range(layout.files)}
    for found in images.walk(depth=0):
        file = places.get(found.uri.rpartition("/")[2])
        if file is not None:
            sizes[file] = found.size or 0
    if not sizes.all():
        name = layout.file_name(int(np.flatnonzero(sizes == 0)[0]))
        raise OutputError(f"{images.uri_of(name)} is not there: `dinoidd verify` says what is lost")
    return sizes


def _carry_out(output: Store, record: RunRecord, journal: Journal, lock: Lock) -> RunRecord:
    """Every step may have been done before."""
    logger.info(
        f"{journal.old.files:,} files into {journal.new.files:,}; there is no _SUCCESS until the end"
    )
    journal.write(output)
    output.remove(SUCCESS)
    run_tasks(merge_parts, _calls(output, record, journal))
    lock.check()
    record = replace(record, layout=journal.new)
    tally = tally_of(output, record)
    entry = {
        "begun": journal.begun,
        "ended": now(),
        "files_before": journal.old.files,
        "files": journal.new.files,
        "bytes": tally.bytes_written,
    }
    others = [e for e in record.compactions if e["begun"] != journal.begun]
    record = replace(
        record,
        summary=record.summary | outcome(tally, record.table),
        compactions=[*others, entry],
    )
    write_record(output, record)
    output.write_bytes(SUCCESS, f"{record.run_id}\n".encode())
    output.remove(COMPACTION)
    logger.info(f"files of {size_text(tally.bytes_written / journal.new.files)} on average")
    return record


def _calls(output: Store, record: RunRecord, journal: Journal) -> Iterator[dict[str, Any]]:
    schema = images_schema(record.table, run_id=record.run_id, fingerprint=record.fingerprint)
    images = output.child(IMAGES)
    for file in range(journal.new.files):
        yield {
            "file": file,
            "old": journal.old,
            "new": journal.new,
            "images": images,
            "schema": schema,
        }


def merge_parts(file: int, *, old: Layout, new: Layout, images: Store, schema: pa.Schema) -> None:
    """Write one large file from the small ones in its range, then remove those."""
    name, rows = new.file_name(file), new.file_range(file)
    parts = range(rows[0] // old.rows_per_file, -(-rows[1] // old.rows_per_file))
    names = [old.file_name(part) for part in parts]
    if names == [name]:
        return
    if not is_there(images, name, schema):
        worked = (read_footer(images, part)[1] for part in names)
        tables = (table for part in names for table in row_groups(images, part))
        rewrite(images, name, tables, rows=rows, schema=schema, worked=worked)
    for part in names:
        images.remove(part)
