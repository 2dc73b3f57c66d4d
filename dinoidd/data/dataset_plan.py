"""What a generated data set consists of: its settings, and its frames in IDD's layout."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dinoidd.data.scenes import size_problem
from dinoidd.errors import ConfigError

FOLDERS = ("leftImg8bit", "gtFine")
FORMATS = ("jpg", "png")
DEFAULT_SPLITS = (("train", 0.7), ("val", 0.3))
IMAGES_PER_DRIVE = 10


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What decides every byte of a generated data set."""

    images: int = 60
    width: int = 480  # pixels
    height: int = 270
    seed: int = 0
    splits: tuple[tuple[str, float], ...] = DEFAULT_SPLITS  # name and share; shares are scaled to 1
    format: str = "jpg"  # of the images; labels are always PNG

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if self.images < 1:
            yield f"--images {self.images}: at least 1 is needed"
        if self.seed < 0:
            yield f"--seed {self.seed}: 0 or more is needed"
        if self.format not in FORMATS:
            yield f"--format {self.format}: there are {', '.join(FORMATS)}"
        yield from size_problem(self.width, self.height)
        names = [name for name, _ in self.splits]
        if not names or len(set(names)) < len(names):
            yield f"--splits {names}: one or more different names are needed"
        for name, share in self.splits:
            if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
                yield f"--splits: '{name}' is no folder name (letters, digits, - and _)"
            if not 0 < share < float("inf"):
                yield f"--splits: the share of '{name}' is {share}, a positive number is needed"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One scene's number and place."""

    index: int
    split: str
    drive: str

    def image_path(self, form: str) -> Path:
        return self._path(FOLDERS[0], f"leftImg8bit.{form}")

    @property
    def label_path(self) -> Path:
        return self._path(FOLDERS[1], "gtFine_labellevel3Ids.png")

    def _path(self, folder: str, suffix: str) -> Path:
        return Path(folder, self.split, self.drive, f"frame{self.index:06d}_{suffix}")


def plan_frames(config: DatasetConfig) -> Iterator[Frame]:
    """Every frame of a data set, in order; no two splits share a drive."""
    index = drive = 0
    for split, count in split_sizes(config):
        for number in range(count):
            drive += number % IMAGES_PER_DRIVE == 0
            yield Frame(index=index, split=split, drive=f"{drive:03d}")
            index += 1


def split_sizes(config: DatasetConfig) -> list[tuple[str, int]]:
    """The images of each split; they sum to `config.images`."""
    shares = np.cumsum([share for _, share in config.splits])
    ends = np.rint(shares / shares[-1] * config.images).astype(int)
    sizes = np.diff(ends, prepend=0).tolist()
    return [(name, size) for (name, _), size in zip(config.splits, sizes, strict=True)]
