"""`index.csv`: which image is in which folder, since names alone do not always tell."""

import csv
import io
from pathlib import Path

from dinoidd.errors import OutputError
from dinoidd.prediction.naming import owner_line
from dinoidd.storage import shown

INDEX = "index.csv"
_HEAD = ["image", "folder"]


class FolderIndex:
    """The index of an output folder; what earlier commands wrote into it stays.

    Raises:
        OutputError: there is an `index.csv` of somebody else, or it cannot be read.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._images = _read(output / INDEX)
        self._changed = False

    def add(self, uri: str, folder: Path) -> None:
        """Note an image's folder."""
        name = shown(uri).rpartition("/")[2]
        self._images[folder.relative_to(self._output).as_posix()] = owner_line(name, uri)
        self._changed = True

    def close(self) -> None:
        """Write what was added; rows of folders that were removed meanwhile go."""
        if not self._changed:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEAD)
        writer.writerows(
            (image, folder)
            for folder, image in sorted(self._images.items())
            if (self._output / folder).is_dir()
        )
        path, partial = self._output / INDEX, self._output / f".{INDEX}.partial"
        try:
            partial.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
            partial.replace(path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, str]:
    """Images by folder; none where there is no index yet."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            head, *rows = [*csv.reader(file)] or [[]]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, csv.Error) as error:
        raise OutputError(f"{path} cannot be read: {error}") from error
    if head != _HEAD or any(len(row) != len(_HEAD) for row in rows):
        raise OutputError(
            f"{path} is not the index of `dinoidd predict`: move it away, or choose another --output"
        )
    return {folder: image for image, folder in rows}
