"""What every format of an export is: how one image is prepared, and how all are put together."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from dinoidd.classes import ClassTable
from dinoidd.errors import ImageError
from dinoidd.exports.folder import ExportFolder
from dinoidd.exports.names import Name
from dinoidd.output.mask import decode_mask
from dinoidd.storage import ObjectReader, shown

R = TypeVar("R")
_EXAMPLES = 3  # originals that cannot be read, named


@dataclass(frozen=True, kw_only=True)
class Context:
    """What formats work with."""

    table: ClassTable
    folder: ExportFolder
    reader: ObjectReader  # of the original images
    scratch: Path  # a local folder for what is not whole yet; removed at the end
    root: str  # the folder that all images share
    about: str  # a sentence on the run, for files that describe themselves


@dataclass(frozen=True)
class Item:
    """One image with its mask: `row` has the columns that the format asked for."""

    row: dict[str, Any]
    name: Name

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.row["width"], self.row["height"]

    def decode_mask(self) -> np.ndarray:
        """Class ids, uint8 [height, width].

        Raises:
            ImageError: the mask is damaged, or has another size than the image.
        """
        mask_HW = decode_mask((self.row["mask"] or {}).get("bytes") or b"")
        if mask_HW.shape[::-1] != self.size:
            raise ImageError("corrupt", f"a mask of {mask_HW.shape[::-1]} for {self.size} pixels")
        return mask_HW


class Format(ABC, Generic[R]):
    """`prepare` runs in threads; `add` and `finish` run one at a time, in the order of images."""

    columns: tuple[str, ...] = ("uri", "height", "width", "mask")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.missing_originals: Counter[str] = Counter()  # by kind
        self._missing_examples: list[str] = []
        self.notes: list[str] = []  # what a user has to know; filled by finish()

    def note_missing(self, item: Item, kind: str) -> None:
        """Count an original that could not be read."""
        self.missing_originals[kind] += 1
        if len(self._missing_examples) < _EXAMPLES:
            self._missing_examples.append(f"{shown(item.row['uri'])} ({kind})")

    def missing_sentence(self, consequence: str) -> str:
        """How many originals could not be read, which for instance, and what comes of it."""
        missing = self.missing_originals.total()
        more = ", ..." if missing > _EXAMPLES else ""
        images = "1 original image" if missing == 1 else f"{missing:,} original images"
        return (
            f"{images} could not be read, {consequence}: {', '.join(self._missing_examples)}{more}"
        )

    @abstractmethod
    def prepare(self, item: Item) -> R:
        """Write the files of one image. Raises ImageError for a damaged mask."""

    @abstractmethod
    def add(self, item: Item, result: R) -> str | None:
        """Take in what `prepare` returned; the image's main file, None where it is left out."""

    @abstractmethod
    def finish(self) -> None:
        """Write the files about all images."""
