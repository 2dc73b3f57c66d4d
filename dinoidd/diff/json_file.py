"""A comparison as a JSON file whose images are written as they are compared."""

import json
from typing import Any, TextIO

from dinoidd.diff.image import ImageDiff
from dinoidd.diff.report import image_dict


class JsonFile:
    """One JSON object: `images`, a line each, then everything else. Memory does not grow with them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._separator = '{"images": [\n'

    def add(self, image: ImageDiff) -> None:
        """The next image; those that could not be compared are named in the rest."""
        if image.matrix is None:
            return
        self._file.write(self._separator + json.dumps(image_dict(image), ensure_ascii=False))
        self._separator = ",\n"

    def finish(self, values: dict[str, Any]) -> None:
        """Everything else: at least one key."""
        start = '{"images": [' if self._separator.startswith("{") else "\n"
        rest = json.dumps(values, indent=1, ensure_ascii=False)
        self._file.write(f"{start}],{rest[1:]}\n")
