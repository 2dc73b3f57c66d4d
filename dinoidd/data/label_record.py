"""Which label images of a folder are ours, and what they were drawn from.

A hidden file of lines `SHA256-OF-IMAGE SHA256-OF-POLYGONS NAME`, of which the last one of a name counts.
Digests tell what times cannot: a copied or unpacked data set has any times. A line that is lost or torn
makes nobody overwrite anything: an image without a line is compared with what would be drawn.
"""

import hashlib
import re
from pathlib import Path

RECORD = ".dinoidd_labels"
_LINE = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64}) (.+)")


def digest(data: bytes) -> str:
    """The sha256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class LabelRecords:
    """The records of the folders that are in hand: of two, as files come and results go in order."""

    def __init__(self) -> None:
        self._of: dict[Path, LabelRecord] = {}

    def drawn(self, image: Path) -> tuple[str, str] | None:
        """The digests of a label image as we wrote it, and of its polygons."""
        folder = image.parent
        if folder not in self._of:
            self._of[folder] = LabelRecord(folder)
        return self._of[folder].drawn(image.name)

    def add(self, image: Path, digests: tuple[str, str] | None) -> None:
        """Note what became of an image, in the order of `drawn`. Raises OSError."""
        while (first := next(iter(self._of))) != image.parent:
            del self._of[first]  # its results are all here
        if digests is not None:
            self._of[first].add(image.name, *digests)


class LabelRecord:
    """The record of one folder; image digest and polygon digest by file name."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD
        self._drawn: dict[str, tuple[str, str]] = {}
        try:
            text = self._path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return
        for match in map(_LINE.fullmatch, text.split("\n")):
            if match:
                self._drawn[match[3]] = match[1], match[2]

    def drawn(self, name: str) -> tuple[str, str] | None:
        """The digests of the image as we wrote it, and of the polygons it was drawn from."""
        return self._drawn.get(name)

    def add(self, name: str, image: str, polygons: str) -> None:
        """Note an image that was drawn. Raises OSError."""
        if self._drawn.get(name) != (image, polygons) and "\n" not in name:
            self._drawn[name] = image, polygons
            with self._path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"\n{image} {polygons} {name}\n")
