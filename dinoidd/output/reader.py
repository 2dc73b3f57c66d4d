"""A run's folder for reading: which files it has, and its two tables as lazy datasets."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dinoidd.classes import ClassTable
from dinoidd.errors import OutputError, StorageError
from dinoidd.output.schema import METADATA_CLASSES, class_table_of, range_name, range_of
from dinoidd.storage import StorageOptions, Store
from dinoidd.storage.failure import explain

COMPACTION = "_compaction.json"  # there while `dinoidd compact` replaces files by larger ones
HALF_COMPACTED = (
    "is in the middle of a compaction, in which rows stand in two files for a while: run "
    "`dinoidd compact` on it again, which finishes that"
)
RETRY = "_retry"  # a run of its own, until its rows have replaced the old ones
RETRY_STATE = "retry.json"  # in it; while it is there, counts may differ from those of run.json
_MANIFEST_PART = re.compile(r"part-\d{12}\.parquet")


@dataclass(frozen=True, order=True)
class Part:
    """A file of `images/`: the manifest's rows from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        return range_name("part", self.start, self.stop)

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Which of these images belong here."""
        return (ids >= self.start) & (ids < self.stop)


class UnreadableFileError(OutputError):
    """One file of a run is damaged."""


class LeanDataset(ds.FileSystemDataset):
    """A dataset that forgets footers after use: those of 10 million rows would take 10 GB."""

    def scanner(self, **options: Any) -> ds.Scanner:
        return super().scanner(**(options | {"cache_metadata": False}))


class RunReader:
    """A finished or growing run.

    Files under other names than the final ones are still being written, and are left alone.

    Raises:
        OutputError: there is no run at `uri`.
        StorageError: the store cannot be reached or does not let us in.
    """

    def __init__(self, uri: str, options: StorageOptions) -> None:
        self.options = options
        self.store = Store.open(uri, options)
        self.uri = self.store.uri
        if not self.store.exists("run.json") and not self.parts and not self.manifest_files:
            raise OutputError(
                f"there is no run in {self.uri}: neither run.json nor manifest/ nor images/; "
                "give the folder that was --output of `dinoidd segment`"
            )

    @property
    def name(self) -> str:
        """The last part of the folder's address."""
        return self.uri.rpartition("/")[2] or self.uri

    def progress_note(self) -> str:
        """How far an unfinished run is, from the names of its files."""
        rows = sum(p.stop - p.start for p in self.parts)
        if self.half_compacted:
            return f"note: {self.uri} {HALF_COMPACTED}"
        total = self.manifest().count_rows() if self.manifest_files else None
        of = f" of {total:,}" if total is not None else ""
        return (
            f"note: the run in {self.uri} is not finished (no _SUCCESS): {rows:,}{of} images so far"
        )

    @cached_property
    def info(self) -> dict[str, Any] | None:
        """`run.json`; None where there is none yet."""
        try:
            info = json.loads(self.store.read_bytes("run.json"))
        except StorageError as error:
            if error.kind == "missing":
                return None
            raise
        except ValueError as error:
            raise OutputError(f"{self.store.uri_of('run.json')} is not JSON: {error}") from error
        if not isinstance(info, dict):
            raise OutputError(f"{self.store.uri_of('run.json')} holds no JSON object")
        return info

    @cached_property
    def finished(self) -> bool:
        """Whether `_SUCCESS` is there, which is written last."""
        return self.store.exists("_SUCCESS")

    @cached_property
    def half_compacted(self) -> bool:
        """Whether a compaction is going on, or was stopped."""
        return not self.finished and self.store.exists(COMPACTION)

    @cached_property
    def half_retried(self) -> bool:
        """Whether `dinoidd retry` is going on, or was stopped: some rows are newer than run.json."""
        return self.store.child(RETRY).exists(RETRY_STATE)

    @cached_property
    def parts(self) -> list[Part]:
        """The files of `images/`, by first image; where two have a row, the larger one of them."""
        ranges = (range_of(name, "part") for name in self.store.child("images").names())
        parts = sorted(Part(*rows) for rows in ranges if rows)
        return _outermost(parts) if self.half_compacted else parts

    @cached_property
    def manifest_files(self) -> list[str]:
        """The Parquet files of `manifest/`, in order."""
        names = self.store.child("manifest").names()
        return sorted(n for n in names if _MANIFEST_PART.fullmatch(n))

    def images(self) -> ds.FileSystemDataset:
        """All rows so far; nothing but the first file's footer is read here.

        Raises:
            OutputError: there are none yet, or the first file is none of ours.
        """
        if not self.parts:
            raise OutputError(
                f"{self.uri} has no images yet: the run has written none, ask again later"
            )
        dataset = self._dataset("images", [p.name for p in self.parts])
        if METADATA_CLASSES not in (dataset.schema.metadata or {}):
            name = self.store.child("images").uri_of(self.parts[0].name)
            raise OutputError(f"{name} was not written by dinoidd: it holds no class table")
        return dataset

    def manifest(self) -> ds.FileSystemDataset:
        """The input of the run: image_id, uri, size, etag.

        Raises:
            OutputError: there is no manifest.
        """
        if not self.manifest_files:
            raise OutputError(f"{self.uri} has no manifest: manifest/ holds no part-*.parquet")
        return self._dataset("manifest", self.manifest_files)

    @contextmanager
    def open_part(self, part: Part) -> Iterator[pq.ParquetFile]:
        """One file of `images/`; what its reader raises inside the block is told in one way.

        Raises:
            UnreadableFileError: the file is damaged.
            StorageError: the store cannot be reached or does not let us in.
        """
        folder = self.store.child("images")
        filesystem, path = folder.arrow_path()
        try:
            with filesystem.open_input_file(f"{path}/{part.name}") as source:
                yield pq.ParquetFile(source, pre_buffer=True)
        except (OSError, pa.ArrowException) as error:
            kind, reason = explain(error, folder.uri, self.options)
            if kind in ("unreachable", "credentials", "forbidden", "missing"):
                raise StorageError(kind, f"{folder.uri_of(part.name)}: {reason}") from error
            reason = " ".join(str(error).split())
            raise UnreadableFileError(f"{part.name} cannot be read: {reason}") from error

    @cached_property
    def table(self) -> ClassTable:
        """The class table of the first file of `images/`."""
        return class_table_of(self.images().schema)

    def _dataset(self, folder: str, names: list[str]) -> ds.FileSystemDataset:
        filesystem, path = self.store.child(folder).arrow_path()
        try:
            files = [f"{path}/{n}" for n in names]
            dataset = ds.dataset(files, filesystem=filesystem, format="parquet")
            fragments = list(dataset.get_fragments())
            return LeanDataset(fragments, dataset.schema, dataset.format, filesystem)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise OutputError(f"{self.store.uri_of(folder)} cannot be read: {reason}") from error


def _outermost(parts: list[Part]) -> list[Part]:
    """Without those that lie in another one."""
    found: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.start, -part.stop)):
        if not found or part.stop > found[-1].stop:
            found.append(part)
    return found
