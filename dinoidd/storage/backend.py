"""Which code talks to which kind of store."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow.fs

from dinoidd.storage.local import LocalFiles
from dinoidd.storage.other import FsspecFiles
from dinoidd.storage.s3 import S3Files
from dinoidd.storage.uri import ObjectInfo, StorageOptions, scheme_of


class Backend(Protocol):
    """What a kind of store can do. URIs are normalised; errors are the libraries' own."""

    def info(self, uri: str) -> ObjectInfo | None: ...
    def is_folder(self, uri: str) -> bool: ...
    def read(
        self,
        uri: str,
        max_bytes: int | None = None,
        indexed: ObjectInfo | None = None,
        seconds: float | None = None,
    ) -> bytes: ...
    def open(self, uri: str) -> BinaryIO: ...
    def write(self, uri: str, data: bytes, seconds: float | None = None) -> None: ...
    def upload(self, local: Path, uri: str) -> None: ...
    def names(self, uri: str) -> list[str]: ...
    def walk(self, uri: str, starts: str, depth: int | None) -> Iterator[ObjectInfo]: ...
    def remove(self, uri: str) -> None: ...
    def remove_all(self, uri: str) -> None: ...
    def remove_unfinished(self, uri: str) -> None: ...
    def arrow(self, uri: str) -> tuple[pyarrow.fs.FileSystem, str]: ...


def backend_of(uri: str, options: StorageOptions) -> Backend:
    """The backend of a URI, made once a process and set of AWS variables."""
    scheme = scheme_of(uri)
    if scheme != "s3":
        return _backend(scheme, StorageOptions(), os.getpid(), ())
    variables = tuple(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return _backend(scheme, options, os.getpid(), variables)  # a forked client would hang


def forget() -> None:
    """Make new backends from now on, which read files with credentials again."""
    _backend.cache_clear()


@functools.lru_cache(maxsize=16)
def _backend(
    scheme: str, options: StorageOptions, process: int, variables: tuple[tuple[str, str], ...]
) -> Backend:
    if scheme == "file":
        return LocalFiles()
    if scheme in ("http", "https"):
        from dinoidd.storage.web import WebFiles  # aiohttp takes a while to import

        return WebFiles(scheme)
    return S3Files(options) if scheme == "s3" else FsspecFiles(scheme)
