"""fsspec file systems as pyarrow wants them."""

from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs


class ArrowHandler(pyarrow.fs.FSSpecHandler):
    """Opens files without asking first whether they are there.

    pyarrow's own handler asks by fsspec's `isfile`, which says no to whatever goes wrong: a store that is
    down, or whose token is expired, would look like one without the file.
    """

    def __init__(self, fs: Any, open_file: Callable[[str], BinaryIO]) -> None:
        super().__init__(fs)
        self._open = open_file

    def open_input_file(self, path: str) -> pa.PythonFile:
        """The file at random access; the error is the store's own."""
        return pa.PythonFile(self._open(path), mode="r")

    open_input_stream = open_input_file


def arrow_filesystem(fs: Any, open_file: Callable[[str], BinaryIO]) -> pyarrow.fs.FileSystem:
    """The file system, for pyarrow, with our own way to open its files."""
    return pyarrow.fs.PyFileSystem(ArrowHandler(fs, open_file))
