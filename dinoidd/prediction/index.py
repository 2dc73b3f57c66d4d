"""`index.csv`: which image is in which folder, since names alone do not always tell, or why in none."""

import csv
import io
from pathlib import Path

from dinoidd.errors import OutputError
from dinoidd.prediction.naming import owner_line
from dinoidd.storage import shown

INDEX = "index.csv"
_HEAD = ["image", "folder", "error"]
_EARLIER_HEAD = _HEAD[:2]  # of indices before failures were noted


class FolderIndex:
    """The index of an output folder; what earlier commands wrote into it stays.

    Raises:
        OutputError: there is an `index.csv` of somebody else, or it cannot be read.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._images, self._errors = _read(output / INDEX)
        self._changed = False

    def add(self, uri: str, folder: Path) -> None:
        """Note an image's folder; an earlier failure of it is forgotten."""
        image = _image(uri)
        self._images[folder.relative_to(self._output).as_posix()] = image
        self._errors.pop(image, None)
        self._changed = True

    def add_error(self, uri: str, error: str) -> None:
        """Note why an image was not segmented; what an earlier command made of it stays."""
        self._errors[_image(uri)] = " ".join(error.split())
        self._changed = True

    def close(self) -> None:
        """Write what was added; rows of folders that were removed meanwhile go."""
        if not self._changed:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEAD)
        writer.writerows(
            (image, folder, "")
            for folder, image in sorted(self._images.items())
            if (self._output / folder).is_dir()
        )
        writer.writerows((image, "", error) for image, error in sorted(self._errors.items()))
        path, partial = self._output / INDEX, self._output / f".{INDEX}.partial"
        try:
            self._output.mkdir(parents=True, exist_ok=True)
            partial.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
            partial.replace(path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            if self._output.is_dir():
                partial.unlink(missing_ok=True)


def _image(uri: str) -> str:
    return owner_line(shown(uri).rpartition("/")[2], uri)


def _read(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Images by folder, and errors by image; none where there is no index yet."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            head, *rows = [*csv.reader(file)] or [[]]
    except (FileNotFoundError, NotADirectoryError):
        return {}, {}
    except (OSError, csv.Error) as error:
        raise OutputError(f"{path} cannot be read: {error}") from error
    if head not in (_HEAD, _EARLIER_HEAD) or any(len(row) != len(head) for row in rows):
        raise OutputError(
            f"{path} is not the index of `dinoidd predict`: move it away, or choose another --output"
        )
    images = {folder: image for image, folder, *_ in rows if folder}
    return images, {image: error for image, folder, *rest in rows for error in rest if not folder}
