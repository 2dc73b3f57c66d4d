"""Frames: which label, prediction and image belong together, told by their names."""

import re
from typing import NamedTuple

# What tools append to a frame's name: gtFine_labellevel3Ids, leftImg8bit, CamVid's L, ours and others'.
_SUFFIX = re.compile(
    r"_(gtFine|gtFine_[A-Za-z0-9]+|leftImg8bit|label[A-Za-z0-9]*|L|pred|prediction|mask|seg"
    r"|segmentation)$"
)


class Frame(NamedTuple):
    """One image of a drive; `drive` is the folders between the root and it, or empty."""

    drive: str
    name: str

    def __str__(self) -> str:
        return f"{self.drive}/{self.name}" if self.drive else self.name

    @property
    def sequence(self) -> str:
        """The drive, or in a flat folder what stands before the last `_` of the name."""
        return self.drive or self.name.rpartition("_")[0]


def frame_of(uri: str, root: str = "") -> Frame:
    """The frame of `root/DRIVE/NAME_suffix.png`; DRIVE may be several folders, or none."""
    folders, _, file = uri[len(root) :].rpartition("/")
    name = file.rpartition(".")[0] or file
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return Frame(folders.strip("/"), name)
