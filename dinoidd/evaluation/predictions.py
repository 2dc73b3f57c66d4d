"""Where predicted masks come from: a folder of PNGs, or a segmentation run's Parquet."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from dinoidd.classes import ClassTable
from dinoidd.data.label_image import read_label
from dinoidd.errors import DinoiddError, ImageError, StorageError
from dinoidd.evaluation.frames import Frame, frame_of
from dinoidd.evaluation.label_files import Kinds, list_label_files
from dinoidd.output.reader import Part, RunReader
from dinoidd.storage import ObjectReader, StorageOptions, shown

Opened = np.ndarray | DinoiddError  # a mask, uint8 [H, W], or why there is none


class Listed(NamedTuple):
    """A mask's frame, the folder that tells its split, and the reference to read it by."""

    frame: Frame
    folder: str
    reference: Any


class Predictions(Protocol):
    """Masks by reference. Picklable: workers read, the driver lists."""

    @property
    def uri(self) -> str:
        """What was opened."""

    @property
    def title(self) -> str:
        """What a result says that it is of."""

    def listed(self) -> Iterable[Listed]:
        """Every mask."""

    def unit(self, reference: Any) -> Hashable:
        """References of one unit are best read together."""

    def place(self, reference: Any) -> str:
        """Where the mask is, for a message."""

    def read(self, references: Sequence[Any]) -> Iterator[Opened]:
        """The masks of references of one unit, in their order."""


@dataclass(frozen=True, kw_only=True)
class FilePredictions:
    """One file a mask; a reference is its URI. What becomes of a file's bytes: see `open`."""

    uri: str
    options: StorageOptions

    @property
    def title(self) -> str:
        return shown(self.uri)

    def unit(self, reference: str) -> Hashable:
        return None

    def place(self, reference: str) -> str:
        return reference

    def read(self, references: Sequence[str]) -> Iterator[Opened]:
        for uri in references:
            try:
                yield self.open(ObjectReader(self.options).read(uri))
            except (StorageError, ImageError) as error:
                yield error

    def open(self, data: bytes) -> np.ndarray:
        """The mask, uint8 [H, W]."""
        raise NotImplementedError

    def _listed(self, uri: str) -> Listed:
        above = self.uri.rstrip("/").rpartition("/")[0]
        return Listed(frame_of(uri, self.uri), uri[len(above) :].rpartition("/")[0], uri)


@dataclass(frozen=True, kw_only=True)
class FolderPredictions(FilePredictions):
    """PNGs of class ids."""

    kinds: Kinds

    def listed(self) -> Iterator[Listed]:
        files = list_label_files(self.uri, self.options, self.kinds)
        yield from (self._listed(uri) for uri in files.uris.values())
        yield from (self._listed(uri) for _, uri in files.repeated)

    def open(self, data: bytes) -> np.ndarray:
        return read_label(data)


class MaskRow(NamedTuple):
    """A row of a run's `images/`; `error` is set where there is no mask."""

    part: Part
    group: int
    row: int
    error: str | None = None


@dataclass(frozen=True)
class OutputPredictions:
    """A segmentation run; a row group is read at once."""

    uri: str
    options: StorageOptions

    @property
    def title(self) -> str:
        return shown(self.uri)

    @property
    def table(self) -> ClassTable:
        return _reader(self.uri, self.options).table

    def listed(self) -> Iterator[Listed]:
        reader = _reader(self.uri, self.options)
        for part in reader.parts:
            with reader.open_part(part) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, ["uri", "status", "error"]).to_pylist()
                    for index, row in enumerate(rows):
                        error = None if row["status"] == "ok" else str(row["error"])
                        folder = row["uri"].rpartition("/")[0]
                        reference = MaskRow(part, group, index, error)
                        yield Listed(frame_of(shown(row["uri"])), folder, reference)

    def unit(self, reference: MaskRow) -> Hashable:
        return reference.part, reference.group

    def place(self, reference: MaskRow) -> str:
        return f"{self.uri}/images/{reference.part.name} row group {reference.group} row {reference.row}"

    def read(self, references: Sequence[MaskRow]) -> Iterator[Opened]:
        first = references[0]
        with _reader(self.uri, self.options).open_part(first.part) as file:
            masks = file.read_row_group(first.group, ["mask"]).column("mask").combine_chunks()
        pngs = masks.field("bytes")
        for reference in references:
            try:
                yield self._open(reference, pngs[reference.row].as_py())
            except ImageError as error:
                yield error

    def _open(self, reference: MaskRow, png: bytes | None) -> np.ndarray:
        if png is None:
            raise ImageError("missing", f"the run has no mask: {reference.error}")
        return read_label(png)


@lru_cache(maxsize=2)
def _reader(uri: str, options: StorageOptions) -> RunReader:
    return RunReader(uri, options)
