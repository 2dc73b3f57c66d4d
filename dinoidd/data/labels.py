"""Label images from IDD's polygon files, byte for byte those of the official tool."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dinoidd.classes.idd_labels import ENCODINGS
from dinoidd.data.label_record import LabelRecord, digest
from dinoidd.data.polygons import PolygonError, decode_annotation, draw_labels
from dinoidd.data.processes import map_in_processes
from dinoidd.errors import ConfigError, InputError, OutputError

FOLDER = "gtFine"
POLYGONS = "_polygons.json"
_EXAMPLES = 5  # foreign images that are named


@dataclass(frozen=True, kw_only=True)
class PolygonFile:
    """A polygon file, and the digests of its label image and of itself when that was last drawn."""

    path: Path
    image: Path
    drawn: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What became of one polygon file: `drawn`, `there` (already), `foreign` (another image is there,
    which this command did not make, and which stays), or `failed`, and why."""

    source: str
    image: str
    outcome: str
    error: str = ""
    digests: tuple[str, str] | None = None  # of an image that is ours, and of its polygons


@dataclass(kw_only=True)
class LabelsInfo:
    """What a call of `draw_label_images` did."""

    root: str
    output: str
    encoding: str
    drawn: int = 0
    there: int = 0  # already, and what the polygons give
    foreign: int = 0  # not made by this command, and other than the polygons: left alone
    failed: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)  # polygon file: what is wrong
    foreign_examples: list[str] = field(default_factory=list)  # label images

    @property
    def files(self) -> int:
        return self.drawn + self.there + self.foreign + self.failed

    def add(self, result: Drawn) -> None:
        """Count one more polygon file."""
        setattr(self, result.outcome, getattr(self, result.outcome) + 1)
        if result.error:
            self.failures[result.source] = result.error
        if result.outcome == "foreign" and len(self.foreign_examples) < _EXAMPLES:
            self.foreign_examples.append(result.image)


def draw_label_images(
    root: str | Path,
    *,
    encoding: str = "level3Id",
    out: str | Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[Drawn], None] | None = None,
) -> LabelsInfo:
    """Draw the label image of every polygon file below `root`/gtFine.

    An image that this function drew from these very polygons is left as it is, so that an interrupted
    call goes on where it stopped; where the polygons have changed since, it is drawn anew. An image that
    somebody else made is never touched: it counts as `there` where it shows what would be drawn, as
    `foreign` where it does not. See `dinoidd.data.label_record`.

    Args:
        root: the data set's folder.
        encoding: what the pixels hold, one of ENCODINGS.
        out: another folder to write to, in the same layout; None: beside the polygon files.
        workers: processes; None: one a CPU core.
        overwrite: draw everything anew, also in place of images that are not ours.
        progress: called after every polygon file, also with what is wrong with it.

    Raises:
        ConfigError: an unknown encoding, or no worker.
        InputError: there is not one polygon file.
        OutputError: the label images cannot be written.
    """
    start = time.monotonic()
    if encoding not in ENCODINGS:
        raise ConfigError(f"--encoding {encoding}: there are {', '.join(ENCODINGS)}")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1 is needed")
    source, target = _local(root), _local(out or root)
    info = LabelsInfo(root=str(source), output=str(target), encoding=encoding)
    records = _Records()
    files = (
        records.polygon_file(path, target / label_path(path, encoding).relative_to(source))
        for path in find_polygon_files(source)
    )
    draw = partial(draw_label_file, encoding, overwrite)
    try:
        for result in map_in_processes(draw, files, workers):
            records.add(result)
            info.add(result)
            if progress:
                progress(result)
    except BrokenProcessPool as error:
        raise OutputError(
            "a process that drew label images was killed (out of memory?): run the same command "
            "again to go on, with fewer --workers"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write label images to {target}: {error}") from error
    if not info.files:
        raise InputError(f"{source / FOLDER} has no polygon files (names end in '{POLYGONS}')")
    info.seconds = round(time.monotonic() - start, 3)
    return info


def find_polygon_files(root: str | Path) -> Iterator[Path]:
    """The polygon files below `root`/gtFine, folder by folder, sorted. Raises InputError."""
    folder = _local(root) / FOLDER
    if not folder.is_dir():
        raise InputError(f"{root} has no folder '{FOLDER}': name the folder that holds it")
    yield from _find(folder)


def _local(folder: str | Path) -> Path:
    if "://" in str(folder):
        raise InputError(f"{folder} is not a local folder: polygon files are drawn on this machine")
    return Path(folder)


def _find(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    yield from (entry for entry in entries if entry.name.endswith(POLYGONS))
    for entry in entries:
        if entry.is_dir():
            yield from _find(entry)


def label_path(polygons: Path, encoding: str) -> Path:
    """The label image's path beside its polygon file, named as the official tool does."""
    suffix = "_labelColors.png" if encoding == "color" else f"_label{encoding}s.png"
    return polygons.with_name(polygons.name.removesuffix(POLYGONS) + suffix)


class _Records:
    """The records of the folders that are in hand: of two, as files come and results go in order."""

    def __init__(self) -> None:
        self._of: dict[Path, LabelRecord] = {}

    def polygon_file(self, path: Path, image: Path) -> PolygonFile:
        record = self._of.get(image.parent)
        if record is None:
            record = self._of[image.parent] = LabelRecord(image.parent)
        return PolygonFile(path=path, image=image, drawn=record.drawn(image.name))

    def add(self, result: Drawn) -> None:
        image = Path(result.image)
        while (first := next(iter(self._of))) != image.parent:
            del self._of[first]  # its results are all here
        if result.digests is not None:
            self._of[first].add(image.name, *result.digests)


def draw_label_file(encoding: str, overwrite: bool, file: PolygonFile) -> Drawn:
    """Draw one polygon file's label image, unless it is there. Raises OSError: it cannot be written."""
    result = partial(Drawn, source=str(file.path), image=str(file.image))
    try:
        polygons = file.path.read_bytes()
    except OSError as error:
        return result(outcome="failed", error=f"cannot be read: {error.strerror}")
    there = None if overwrite else _read(file.image)
    image_drawn, polygons_drawn = file.drawn or ("", "")
    is_ours = there is not None and digest(there) == image_drawn
    if is_ours and digest(polygons) == polygons_drawn:
        return result(outcome="there")
    try:
        image = draw_labels(decode_annotation(polygons), encoding)
    except PolygonError as error:
        return result(outcome="failed", error=str(error))
    data = _png(image)
    digests = digest(data), digest(polygons)
    if there == data:
        return result(outcome="there", digests=digests)
    if (
        there is None or is_ours or data.startswith(there)
    ):  # the last: cut off, when a disk was full
        _write_whole(file.image, data)
        return result(outcome="drawn", digests=digests)
    return result(outcome="there" if _shows(there, image) else "foreign")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _shows(png: bytes, image: Image.Image) -> bool:
    """Whether another tool's file holds the same pixels, however it compressed them."""
    try:
        with Image.open(io.BytesIO(png)) as other:
            return other.mode == image.mode and np.array_equal(np.asarray(other), np.asarray(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _write_whole(path: Path, data: bytes) -> None:
    """A file of that name is there in whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
