"""A segmented image's folder: it appears whole or not at all, and never takes another's place."""

import shutil
from collections.abc import Callable
from pathlib import Path

from dinoidd.errors import OutputError
from dinoidd.prediction.naming import STATISTICS

ORIGINAL = "original.png"
RAW = "segmentation_raw.npy"
COLORED = "segmentation_colored.png"
COMPARISON = "comparison.png"
FILES = frozenset({ORIGINAL, RAW, COLORED, COMPARISON, STATISTICS})


def write_folder(folder: Path, write_files: Callable[[Path], None]) -> None:
    """Write or replace an image's folder. An earlier one stays until the new one is whole.

    Args:
        write_files: writes the files into the folder that it is given.

    Raises:
        OutputError: it cannot be written, or holds files that are not ours.
    """
    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    try:
        for left_over in (partial, old):
            shutil.rmtree(left_over, ignore_errors=True)
        partial.mkdir(parents=True)
        write_files(partial)
        if folder.exists() or folder.is_symlink():
            _check_ours(folder)
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_ours(folder: Path) -> None:
    """Raise OutputError unless removing the folder loses nothing but an earlier result."""
    strangers = sorted({p.name for p in folder.iterdir()} - FILES) if folder.is_dir() else ["?"]
    if strangers or folder.is_symlink():
        raise OutputError(
            f"{folder} holds more than a result ({', '.join(strangers[:3]) or 'it is a link'}): "
            "move it away, or choose another output folder"
        )
