"""Where IDD's polygon files lie, and what their label images are called."""

from collections.abc import Iterator
from pathlib import Path

from dinoidd.data.frames import POLYGONS_SUFFIX
from dinoidd.errors import InputError

FOLDER = "gtFine"


def find_polygon_files(root: str | Path) -> Iterator[Path]:
    """The polygon files below `root`/gtFine, folder by folder, sorted. Raises InputError."""
    folder = local_folder(root) / FOLDER
    if not folder.is_dir():
        raise InputError(f"{root} has no folder '{FOLDER}': name the folder that holds it")
    yield from _find(folder, set())


def local_folder(folder: str | Path) -> Path:
    """The folder of this machine. Raises InputError for those of a store."""
    if "://" in str(folder):
        raise InputError(f"{folder} is not a local folder: polygon files are drawn on this machine")
    return Path(folder)


def _find(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Links to folders are followed, and no folder is gone through twice."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    entries = sorted(folder.iterdir())
    yield from (entry for entry in entries if entry.name.endswith(POLYGONS_SUFFIX))
    for entry in entries:
        if entry.is_dir():
            yield from _find(entry, seen)


def label_path(polygons: Path, encoding: str) -> Path:
    """The label image's path beside its polygon file, named as the official tool does."""
    suffix = "_gtFine_labelColors.png" if encoding == "color" else f"_gtFine_label{encoding}s.png"
    return polygons.with_name(polygons.name.removesuffix(POLYGONS_SUFFIX) + suffix)
