"""Where predicted masks come from: a folder of PNGs, or a segmentation run's Parquet."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from PIL import Image

from dinoidd.classes import ClassTable
from dinoidd.errors import DinoiddError, ImageError
from dinoidd.evaluation.frames import Frame, frame_of
from dinoidd.evaluation.label_files import in_order, list_label_files
from dinoidd.evaluation.label_image import open_label
from dinoidd.output.reader import Part, RunReader
from dinoidd.storage import ObjectReader, StorageOptions

Opened = Image.Image | DinoiddError  # a mask, or why there is none


class Predictions(Protocol):
    """Masks by reference. Picklable: workers read, the driver lists."""

    @property
    def uri(self) -> str:
        """What was opened."""

    def listed(self) -> Iterable[tuple[Frame, Any]]:
        """Every frame and the reference of its mask."""

    def unit(self, reference: Any) -> Hashable:
        """References of one unit are best read together."""

    def place(self, reference: Any) -> str:
        """Where the mask is, for a message."""

    def read(self, references: Sequence[Any]) -> Iterator[Opened]:
        """The masks of references of one unit, in their order."""


@dataclass(frozen=True)
class FolderPredictions:
    """PNGs of class ids; a reference is the file's URI."""

    uri: str
    options: StorageOptions
    suffix: str | None = None

    def listed(self) -> Iterator[tuple[Frame, str]]:
        files = list_label_files(self.uri, self.options, self.suffix, required=False)
        return in_order(files)

    def unit(self, reference: str) -> Hashable:
        return None

    def place(self, reference: str) -> str:
        return reference

    def read(self, references: Sequence[str]) -> Iterator[Opened]:
        for uri in references:
            try:
                yield open_label(ObjectReader(self.options).read(uri))
            except DinoiddError as error:
                yield error


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
    def table(self) -> ClassTable:
        return _reader(self.uri, self.options).table

    def listed(self) -> Iterator[tuple[Frame, MaskRow]]:
        reader = _reader(self.uri, self.options)
        for part in reader.parts:
            with reader.open_part(part) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, ["uri", "status", "error"]).to_pylist()
                    for index, row in enumerate(rows):
                        error = None if row["status"] == "ok" else str(row["error"])
                        yield frame_of(row["uri"]), MaskRow(part, group, index, error)

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

    def _open(self, reference: MaskRow, png: bytes | None) -> Image.Image:
        if png is None:
            raise ImageError("missing", f"the run has no mask: {reference.error}")
        return open_label(png)


@lru_cache(maxsize=2)
def _reader(uri: str, options: StorageOptions) -> RunReader:
    return RunReader(uri, options)
