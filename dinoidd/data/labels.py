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
from dinoidd.data.frames import POLYGONS_SUFFIX
from dinoidd.data.label_record import LabelRecords, digest
from dinoidd.data.polygon_files import FOLDER, find_polygon_files, label_path, local_folder
from dinoidd.data.polygons import PolygonError, decode_annotation, draw_labels
from dinoidd.data.processes import map_in_processes
from dinoidd.errors import ConfigError, InputError, OutputError

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
    source, target = local_folder(root), local_folder(out or root)
    info = LabelsInfo(root=str(source), output=str(target), encoding=encoding)
    draw = partial(draw_label_file, encoding, overwrite)
    for result in _drawn(draw, source, target, encoding, workers):
        info.add(result)
        if progress:
            progress(result)
    if not info.files:
        raise InputError(
            f"{source / FOLDER} has no polygon files (names end in '{POLYGONS_SUFFIX}')"
        )
    info.seconds = round(time.monotonic() - start, 3)
    return info


def _drawn(
    draw: Callable[[PolygonFile], Drawn],
    source: Path,
    target: Path,
    encoding: str,
    workers: int | None,
) -> Iterator[Drawn]:
    """Every polygon file's result, once it is in the record. Raises OutputError."""
    records = LabelRecords()
    images = (
        (path, target / label_path(path, encoding).relative_to(source))
        for path in find_polygon_files(source)
    )
    files = (PolygonFile(path=p, image=i, drawn=records.drawn(i)) for p, i in images)
    try:
        for result in map_in_processes(draw, files, workers):
            records.add(Path(result.image), result.digests)
            yield result
    except BrokenProcessPool as error:
        raise OutputError(
            "a process that drew label images was killed (out of memory?): run the same command "
            "again to go on, with fewer --workers"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write label images to {target}: {error}") from error


def draw_label_file(encoding: str, overwrite: bool, file: PolygonFile) -> Drawn:
    """Draw one polygon file's label image, unless it is there. Raises OSError: it cannot be written."""
    result = partial(Drawn, source=str(file.path), image=str(file.image))
    try:
        polygons = file.path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}{_earlier_image(file)}"
        return result(outcome="failed", error=what)
    try:
        there = None if overwrite and not file.image.is_dir() else _read(file.image)
    except OSError as error:
        what = f"its label image {file.image} is there and cannot be read: {error.strerror}"
        return result(outcome="failed", error=what)
    image_drawn, polygons_drawn = file.drawn or ("", "")
    is_ours = there is not None and digest(there) == image_drawn
    if is_ours and digest(polygons) == polygons_drawn:
        return result(outcome="there")
    try:
        image = draw_labels(decode_annotation(polygons), encoding)
    except PolygonError as error:
        return result(outcome="failed", error=f"{error}{_earlier_image(file)}")
    data = _png(image)
    digests = digest(data), digest(polygons)
    if there == data:
        return result(outcome="there", digests=digests)
    was_cut_off = there is not None and data.startswith(there)  # when a disk was full
    if there is None or is_ours or was_cut_off:
        _write_whole(file.image, data)
        return result(outcome="drawn", digests=digests)
    return result(outcome="there" if _shows(there, image) else "foreign")


def _earlier_image(file: PolygonFile) -> str:
    """A broken file's image is not removed, but nobody should take it for a good one unawares."""
    stays = "; its earlier label image stays and may be out of date"
    return stays if file.image.is_file() else ""


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
