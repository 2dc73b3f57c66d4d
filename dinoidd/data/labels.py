"""Label images from IDD's polygon files, byte for byte those of the official tool."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from os import stat_result, utime
from pathlib import Path

from dinoidd.classes.idd_labels import ENCODINGS
from dinoidd.data.polygons import PolygonError, draw_labels, read_annotation
from dinoidd.data.processes import map_in_processes
from dinoidd.errors import ConfigError, InputError, OutputError

FOLDER = "gtFine"
POLYGONS = "_polygons.json"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What became of one polygon file: `drawn`, `there` (already), or `failed`, and why."""

    source: str
    outcome: str
    error: str = ""


@dataclass(kw_only=True)
class LabelsInfo:
    """What a call of `draw_label_images` did."""

    root: str
    output: str
    encoding: str
    drawn: int = 0
    there: int = 0  # already, and newer than the polygons
    failed: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)  # polygon file: what is wrong

    @property
    def files(self) -> int:
        return self.drawn + self.there + self.failed

    def add(self, result: Drawn) -> None:
        """Count one more polygon file."""
        setattr(self, result.outcome, getattr(self, result.outcome) + 1)
        if result.error:
            self.failures[result.source] = result.error


def draw_label_images(
    root: str | Path,
    *,
    encoding: str = "level3Id",
    out: str | Path | None = None,
    workers: int | None = None,
    restart: bool = False,
    progress: Callable[[Drawn], None] | None = None,
) -> LabelsInfo:
    """Draw the label image of every polygon file below `root`/gtFine.

    An image that is whole and no older than its polygon file is left as it is, so that an interrupted
    call goes on where it stopped and a changed polygon file is drawn anew.

    Args:
        root: the data set's folder.
        encoding: what the pixels hold, one of ENCODINGS.
        out: another folder to write to, in the same layout; None: beside the polygon files.
        workers: processes; None: one a CPU core.
        restart: draw everything anew.
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
    draw = partial(draw_label_file, source, target, encoding, restart)
    try:
        for result in map_in_processes(draw, find_polygon_files(source), workers):
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


def draw_label_file(root: Path, target: Path, encoding: str, restart: bool, path: Path) -> Drawn:
    """Draw one polygon file's label image, unless it is there. Raises OSError: it cannot be written."""
    output = target / label_path(path, encoding).relative_to(root)
    try:
        before = path.stat()
    except OSError as error:
        return Drawn(source=str(path), outcome="failed", error=f"cannot be read: {error.strerror}")
    if not restart and _is_finished(output, before):
        return Drawn(source=str(path), outcome="there")
    try:
        image = draw_labels(read_annotation(path), encoding)
    except PolygonError as error:
        return Drawn(source=str(path), outcome="failed", error=str(error))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    _write_whole(output, buffer.getvalue(), before)
    return Drawn(source=str(path), outcome="drawn")


def _is_finished(output: Path, polygons: stat_result) -> bool:
    """Whether the image is whole and was made from these polygons, or later by another tool."""
    try:
        if output.stat().st_mtime_ns < polygons.st_mtime_ns:
            return False
        with output.open("rb") as file:
            start = file.read(len(_PNG_START))
            file.seek(-len(_PNG_END), 2)
            return start == _PNG_START and file.read() == _PNG_END
    except OSError:  # it is not there, or too short to seek
        return False


def _write_whole(path: Path, data: bytes, polygons: stat_result) -> None:
    """A file of that name is there in whole or not at all.

    It takes the time of the polygons as they were before they were read: whoever changes them, even
    meanwhile, makes them newer than the image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    utime(part, ns=(polygons.st_atime_ns, polygons.st_mtime_ns))
    part.replace(path)
