"""A folder, here or in a bucket."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow.fs

from dinoidd.errors import OutputError, StorageError
from dinoidd.storage.backend import Backend, backend_of
from dinoidd.storage.failure import told
from dinoidd.storage.retry import BRISK, STEADY, Patience, persist
from dinoidd.storage.uri import DEFAULT_OPTIONS, ObjectInfo, StorageOptions, normalise

# One fixed name, so that a store which lets us write but not remove keeps at most one of them.
WRITE_CHECK = ".dinoidd-write-check"


@dataclass(frozen=True)
class Store:
    """A folder of files, local or in object storage. Picklable; make one with `Store.open`.

    Methods raise StorageError (`missing`, `forbidden`, `unreadable`, `full`), or OutageError where the
    store does not answer or does not know these credentials.
    """

    uri: str  # an absolute path, or s3://bucket/prefix; no trailing slash
    options: StorageOptions = DEFAULT_OPTIONS

    @classmethod
    def open(cls, uri: str, options: StorageOptions = DEFAULT_OPTIONS) -> "Store":
        """The folder at `uri`, which need not exist; nothing is asked of the store."""
        return cls(normalise(uri), options)

    def child(self, *parts: str) -> "Store":
        """A folder below this one."""
        return Store("/".join([self.uri.rstrip("/"), *parts]), self.options)

    def uri_of(self, name: str) -> str:
        """The URI of a file in this folder."""
        return f"{self.uri.rstrip('/')}/{name}"

    def read_bytes(self, name: str) -> bytes:
        """A whole file."""
        uri = self.uri_of(name)

        def read(seconds: float) -> bytes:
            with told(uri, self.options):
                return self._backend.read(uri, seconds=seconds)

        return persist(read, BRISK)

    @contextmanager
    def open_read(self, name: str) -> Iterator[BinaryIO]:
        """A file to be read piece by piece."""
        uri = self.uri_of(name)
        with told(uri, self.options), self._backend.open(uri) as file:
            yield file

    def write_bytes(self, name: str, data: bytes, patience: Patience = STEADY) -> None:
        """Write or replace a file; readers see the old or the new one, never a part.

        It tries for minutes, since work that took long is lost with it, unless `patience` is less.
        """
        self._write(name, lambda uri, left: self._backend.write(uri, data, left), patience)

    def upload(self, local: Path, name: str) -> None:
        """Copy a local file here, of any size, as whole as `write_bytes` does."""
        self._write(name, lambda uri, _: self._backend.upload(local, uri), STEADY)

    def _write(self, name: str, write: Callable[[str, float], None], patience: Patience) -> None:
        uri = self.uri_of(name)

        def once(seconds: float) -> None:
            with told(uri, self.options, "written"):
                write(uri, seconds)

        persist(once, patience)

    def info(self, name: str) -> ObjectInfo | None:
        """What the store knows about a file; None where there is none."""
        uri = self.uri_of(name)
        with told(uri, self.options, "looked up"):
            return self._backend.info(uri)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.info(name) is not None

    def is_folder(self) -> bool:
        """Whether this folder is there (in object storage: whether anything lies in it)."""
        with told(self.uri, self.options, "listed"):
            return self._backend.is_folder(self.uri)

    def names(self) -> list[str]:
        """The files directly in this folder, sorted, hidden ones left out; [] without a folder."""
        with told(self.uri, self.options, "listed"):
            return self._backend.names(self.uri)

    def walk(self, starts: str = "", depth: int | None = None) -> Iterator[ObjectInfo]:
        """Every file below this folder, as a stream; hidden ones too.

        `starts` keeps the files whose path from here begins with it, `depth` limits how many
        folders deep it goes (0: this folder alone).
        """
        with told(self.uri, self.options, "listed"):
            yield from self._backend.walk(self.uri, starts, depth)

    def remove(self, name: str) -> None:
        """Remove a file; fine when it is not there."""
        uri = self.uri_of(name)
        with told(uri, self.options, "removed"):
            self._backend.remove(uri)

    def remove_all(self) -> None:
        """Remove this folder and all in it. A whole bucket or `/` is refused (OutputError)."""
        with told(self.uri, self.options, "removed"):
            self._backend.remove_all(self.uri)

    def remove_unfinished(self) -> None:
        """Remove what killed writers left below this folder; for when nobody writes here.

        Temporary files of a local folder; in S3 the parts of uploads, which cost money and show in no
        listing. (A writer that lives on fails by it, and its retry starts anew.)
        """
        with told(self.uri, self.options, "cleaned"):
            self._backend.remove_unfinished(self.uri)

    def check_writable(self) -> None:
        """Write and remove a tiny file; an OutputError says in one sentence why that fails."""
        uri = self.uri_of(WRITE_CHECK)
        try:
            with told(self.uri, self.options, "written to"):
                self._backend.write(uri, b"")
        except StorageError as error:
            raise OutputError(f"the output {error}") from error
        try:
            self.remove(WRITE_CHECK)
        except StorageError as error:
            if error.kind != "forbidden":  # leave to write is all that a run needs
                raise OutputError(f"the output {error}") from error

    def arrow_path(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """This folder as pyarrow.dataset and pyarrow.parquet want it."""
        with told(self.uri, self.options):
            return self._backend.arrow(self.uri)

    @property
    def _backend(self) -> Backend:
        return backend_of(self.uri, self.options)
