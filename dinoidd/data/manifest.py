"""The manifest of a run: its input, fixed before anything runs, as numbered rows in Parquet.

`manifest/part-{first id}.parquet` hold 65,536 rows each (the last file fewer) in row groups of
1,024, so the place of a row follows from its number. `manifest.json` is written last: without it
the manifest is unfinished, and is written again. A URI that a list names twice stands here twice,
and gets two rows of results; finding out would need all of them in memory.
"""

import functools
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.data.listing import list_images
from dinoidd.errors import InputError, OutputError, StorageError
from dinoidd.output.schema import MANIFEST
from dinoidd.storage import BRISK, DEFAULT_OPTIONS, ObjectInfo, StorageOptions, Store, shown
from dinoidd.storage.failure import told
from dinoidd.storage.retry import persist

ROWS_PER_FILE = 65_536
ROWS_PER_GROUP = 1_024
FOLDER = "manifest"
INFO_NAME = "manifest.json"
_FILE_NAME = re.compile(r"part-\d{12}\.parquet")


@dataclass(frozen=True, kw_only=True)
class ManifestInfo:
    """What `manifest.json` says about a finished manifest."""

    rows: int
    files: int
    bytes: int  # of all images whose size is known
    input: str  # as the user named it, without signatures; the first of several
    skipped: dict[str, int]  # files that are no images, by suffix
    sha256: str  # over uri, size and etag of every row in order, however they are stored
    rows_per_file: int = ROWS_PER_FILE
    rows_per_group: int = ROWS_PER_GROUP
    more_inputs: list[str] = field(default_factory=list)  # those after the first
    selection: dict[str, str | int] = field(default_factory=dict)  # where, sample, sample_seed
    listed: int | None = None  # images before the selection, where there is one
    listed_bytes: int | None = None


def index_images(
    input_uri: str,
    output: Store,
    options: StorageOptions = DEFAULT_OPTIONS,
    progress: Callable[[int], None] | None = None,
) -> ManifestInfo:
    """List an input into `OUTPUT/manifest/`, in place of a manifest that is there already.

    `options` say where the input is; `progress` is told the rows so far, every 1,024 rows. Raises
    InputError or StorageError; a part of a manifest that this leaves counts as none.
    """
    counts: Counter[str] = Counter()
    images = list_images(input_uri, options, counts=counts)
    folder = output.child(FOLDER)
    return write_manifest(folder, images, input_uri=input_uri, counts=counts, progress=progress)


def write_manifest(
    folder: Store,
    images: Iterable[ObjectInfo],
    *,
    input_uri: str,
    counts: Mapping[str, int],
    progress: Callable[[int], None] | None = None,
    about: Callable[[], dict[str, Any]] = dict,
) -> ManifestInfo:
    """Write `images` into a manifest folder, with one file in memory at a time.

    `counts`, the files left out by suffix, is read at the end, when the listing has filled it, and
    `about` is asked then for more fields of the ManifestInfo.
    """
    writer = _Writer(folder)
    rest = iter(images)
    while group := list(islice(rest, ROWS_PER_GROUP)):
        writer.add(group)
        if progress:
            progress(writer.rows)
    if writer.rows == 0:
        raise InputError(f"{shown(input_uri)} holds no image")
    return writer.finish(shown(input_uri), counts, about())


class _Writer:
    """Writes groups of rows into files, and counts."""

    def __init__(self, folder: Store) -> None:
        self.folder = folder
        self.rows = self.bytes = self.files = 0
        self.digest = hashlib.sha256()
        self.buffer: pa.BufferOutputStream | None = None

    def add(self, group: list[ObjectInfo]) -> None:
        """One row group; all but the last must be full."""
        if self.rows == 0:
            self._clear()
        if self.buffer is None:
            self.first, self.buffer = self.rows, pa.BufferOutputStream()
            self.parquet = pq.ParquetWriter(
                self.buffer, MANIFEST, compression="zstd", write_statistics=["image_id"]
            )
        self.parquet.write_table(_table(group, self.rows), row_group_size=ROWS_PER_GROUP)
        lines = "".join(f"{i.uri}\0{i.size}\0{i.etag}\n" for i in group)
        self.digest.update(lines.encode())
        self.rows += len(group)
        self.bytes += sum(i.size or 0 for i in group)
        if self.rows % ROWS_PER_FILE == 0:
            self._close_file()

    def finish(
        self, input_uri: str, counts: Mapping[str, int], about: dict[str, Any]
    ) -> ManifestInfo:
        """Close the last file, then say that the manifest is complete."""
        self._close_file()
        info = ManifestInfo(
            rows=self.rows,
            files=self.files,
            bytes=self.bytes,
            input=input_uri,
            skipped=dict(sorted(counts.items())),
            sha256=self.digest.hexdigest(),
            **about,
        )
        self.folder.write_bytes(INFO_NAME, json.dumps(asdict(info), indent=2).encode())
        return info

    def _clear(self) -> None:
        """Only now, when the new listing has begun to give rows, may an older manifest go."""
        self.folder.remove(INFO_NAME)  # first: a reader must not believe in what is half removed
        for name in self.folder.names():
            if _FILE_NAME.fullmatch(name):
                self.folder.remove(name)
        _row_group.cache_clear()
        _parquet_file.cache_clear()

    def _close_file(self) -> None:
        if self.buffer is None:
            return
        self.parquet.close()
        self.folder.write_bytes(_file_name(self.first), self.buffer.getvalue().to_pybytes())
        self.buffer = None
        self.files += 1


def read_manifest_info(folder: Store) -> ManifestInfo | None:
    """What is known about the manifest in `folder`; None where there is none, or a part of one."""
    try:
        values = json.loads(folder.read_bytes(INFO_NAME))
        info = ManifestInfo(**values)
    except StorageError as error:
        if error.kind == "missing":
            return None
        raise
    except (ValueError, TypeError) as error:
        what = f"{folder.uri_of(INFO_NAME)} is no manifest that this version wrote"
        raise OutputError(f"{what}: start again with --restart") from error
    if (info.rows_per_file, info.rows_per_group) != (ROWS_PER_FILE, ROWS_PER_GROUP):
        what = f"{folder.uri} has {info.rows_per_file:,} rows a file, expected {ROWS_PER_FILE:,}"
        raise OutputError(f"{what}: start again with --restart")
    return info


def read_rows(folder: Store, start: int, stop: int, version: str = "") -> pa.Table:
    """Rows `start` to `stop` (exclusive) of a manifest, in order, with the schema MANIFEST.

    `version`, the manifest's sha256, keeps a process from mixing it with an earlier one of the same
    place. Cheap for neighbouring ranges: a file's footer and its last row groups stay in the process.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"rows {start} to {stop} are no range")
    groups = range(start // ROWS_PER_GROUP, -(-stop // ROWS_PER_GROUP) if stop > start else 0)
    with _reading:
        tables = list(_read_groups(folder, groups, version))
    table = pa.concat_tables([MANIFEST.empty_table(), *tables])
    offset = start - groups.start * ROWS_PER_GROUP if tables else 0
    rows = table.slice(offset, stop - start)
    if len(rows) != stop - start:
        raise OutputError(f"the manifest {folder.uri} has no rows {start:,} to {stop:,}")
    return rows


_reading = threading.Lock()  # a ParquetFile is not for two threads


def _read_groups(folder: Store, groups: range, version: str) -> Iterator[pa.Table]:
    for group in groups:
        first = group * ROWS_PER_GROUP // ROWS_PER_FILE * ROWS_PER_FILE
        yield _row_group(folder, first, group - first // ROWS_PER_GROUP, version)


@functools.lru_cache(maxsize=4)
def _row_group(folder: Store, first: int, group: int, version: str) -> pa.Table:
    """One row group of the file that begins with row `first`."""

    def read(_: float) -> pa.Table:
        try:
            with told(folder.uri_of(_file_name(first)), folder.options):
                parquet = _parquet_file(folder, first, version)
                if group >= parquet.num_row_groups:
                    return MANIFEST.empty_table()
                return parquet.read_row_group(group, use_threads=False)
        except StorageError:
            _parquet_file.cache_clear()  # what is open goes on with the credentials of its time
            raise

    return persist(read, BRISK)


@functools.lru_cache(maxsize=2)
def _parquet_file(folder: Store, first: int, version: str) -> pq.ParquetFile:
    filesystem, path = folder.arrow_path()
    file = filesystem.open_input_file(f"{path}/{_file_name(first)}")
    return pq.ParquetFile(file, pre_buffer=True)


def _table(group: list[ObjectInfo], first: int) -> pa.Table:
    columns = {
        "image_id": range(first, first + len(group)),
        "uri": [i.uri for i in group],
        "size": [i.size for i in group],
        "etag": [i.etag for i in group],
    }
    return pa.table(columns, schema=MANIFEST)


def _file_name(first: int) -> str:
    return f"part-{first:012d}.parquet"
