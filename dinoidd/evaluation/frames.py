"""Frames: which label, prediction and image belong together, told by their names."""

import re
from typing import NamedTuple

# What tools append to a frame's name: gtFine_labellevel3Ids, leftImg8bit, CamVid's L, ours and others'.
_SUFFIX = re.compile(
    r"_(gtFine|gtFine_[A-Za-z0-9]+|leftImg8bit|label[A-Za-z0-9]*|L|pred|prediction|mask|seg"
    r"|segmentation)$"
)
_SPLITS = {"train", "val", "test"}
_OFFICIAL = re.compile(r"(?:^|/)(?:leftImg8bit|gtFine)/([^/]+)/[^/]+$")


class Frame(NamedTuple):
    """One image of a drive; `drive` is empty in a folder that has no folders."""

    drive: str
    name: str

    def __str__(self) -> str:
        return f"{self.drive}/{self.name}" if self.drive else self.name

    @property
    def sequence(self) -> str:
        """The drive, or in a flat folder what stands before the last `_` of the name."""
        return self.drive or self.name.rpartition("_")[0]


def frame_of(uri: str, root: str = "") -> Frame:
    """The frame of `root/.../DRIVE/NAME_suffix.png`; folders above `root` are no drives."""
    folders, _, file = uri[len(root) :].rpartition("/")
    name = file.rpartition(".")[0] or file
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return Frame(folders.rpartition("/")[2], name)


def split_of(folder: str, asked: str | None = None) -> str | None:
    """The split of the files in a folder: `val` of `.../leftImg8bit/val/DRIVE`, `.../val/DRIVE`,
    `.../val`, and `.../valannot`; None where none is told.

    Args:
        asked: another name that a split may have besides train, val and test.
    """
    if match := _OFFICIAL.search(folder):
        return match[1]
    for name in folder.split("/")[:-3:-1]:
        if (split := name.removesuffix("annot")) in _SPLITS or split == asked:
            return split
    return None
