"""Folders of this machine (or of a file system that every node mounts)."""

import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow.fs

from dinoidd.errors import OutputError, StorageError
from dinoidd.storage.limits import refuse_changed, refuse_over
from dinoidd.storage.uri import ObjectInfo, printable

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")  # see `_Replacing`


class LocalFiles:
    """Objects are regular files; a URI is an absolute path."""

    def info(self, uri: str) -> ObjectInfo | None:
        """Size of a file, or None where there is none."""
        try:
            status = Path(uri).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        return ObjectInfo(uri=uri, size=status.st_size, modified=status.st_mtime)

    def is_folder(self, uri: str) -> bool:
        """Whether there is such a folder."""
        return Path(uri).is_dir()

    def read(
        self,
        uri: str,
        max_bytes: int | None = None,
        indexed: ObjectInfo | None = None,
        seconds: float | None = None,
    ) -> bytes:
        """The whole file; a pipe or a device is refused, because reading it may never end."""
        status = Path(uri).stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise StorageError("unreadable", printable(f"{uri} cannot be read: it is {what}"))
        refuse_changed(uri, indexed, status.st_size)
        refuse_over(uri, status.st_size, max_bytes)
        return Path(uri).read_bytes()

    def open(self, uri: str) -> BinaryIO:
        """The file, opened to be read piece by piece."""
        return Path(uri).open("rb")

    def write(self, uri: str, data: bytes, seconds: float | None = None) -> None:
        """Write beside the final name, then rename: a reader sees all of it or nothing."""
        with _Replacing(uri) as file:
            file.write(data)

    def upload(self, local: Path, uri: str) -> None:
        """Copy a file of any size, with the same promise as `write`."""
        with local.open("rb") as source, _Replacing(uri) as file:
            shutil.copyfileobj(source, file, 8 << 20)

    def names(self, uri: str) -> list[str]:
        """Files directly in the folder, sorted, without hidden ones."""
        try:
            with os.scandir(uri) as entries:
                return sorted(e.name for e in entries if e.name[0] != "." and e.is_file())
        except FileNotFoundError:
            return []

    def walk(self, uri: str, starts: str, depth: int | None) -> Iterator[ObjectInfo]:
        """Every file below the folder; folders are sorted, links followed but never in circles."""
        yield from self._walk(uri, starts, depth, frozenset())

    def _walk(
        self, folder: str, starts: str, depth: int | None, above: frozenset[tuple[int, int]]
    ) -> Iterator[ObjectInfo]:
        status = Path(folder).stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            found = sorted((e.name, _is_dir(e)) for e in entries if e.name.startswith(starts))
        for name, is_dir in found:
            path = os.path.join(folder, name)  # noqa: PTH118 (Path would drop nothing but time)
            if not is_dir:
                yield _listed(path)
            elif depth is None or depth > 0:
                below = None if depth is None else depth - 1
                yield from self._walk(path, "", below, above | {here})

    def remove(self, uri: str) -> None:
        """Remove a file; fine when it is not there."""
        Path(uri).unlink(missing_ok=True)

    def remove_all(self, uri: str) -> None:
        """Remove the folder and all in it; fine when it is not there."""
        if Path(uri).parent == Path(uri):
            raise OutputError("refusing to remove /, the root of the file system")
        if Path(uri).exists():
            shutil.rmtree(uri)

    def remove_unfinished(self, uri: str) -> None:
        """Remove the temporary files of writers that were killed."""
        for path in Path(uri).rglob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def arrow(self, uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """pyarrow's own local file system."""
        return pyarrow.fs.LocalFileSystem(), uri


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _listed(path: str) -> ObjectInfo:
    """A file as the listing shows it; one whose link leads nowhere is told when it is read."""
    try:
        status = Path(path).stat()
    except OSError:
        return ObjectInfo(uri=path, size=None)
    return ObjectInfo(uri=path, size=status.st_size, modified=status.st_mtime)


class _Replacing:
    """A temporary file that becomes `path` when the block ends well, and vanishes otherwise."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{uuid.uuid4().hex}.tmp")

    def __enter__(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.temporary.open("xb")
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self.file:
                if kind is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            if kind is None:
                self.temporary.replace(self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
