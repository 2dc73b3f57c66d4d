"""Any other fsspec URL: gs://, az://, memory:// in tests."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import fsspec.asyn
import pyarrow.fs

from dinoidd.errors import OutputError, StorageError
from dinoidd.storage.arrow import arrow_filesystem
from dinoidd.storage.limits import refuse_changed, refuse_over
from dinoidd.storage.uri import ObjectInfo, shown

_INFO_S = 60  # for a store to tell of an object


class FsspecFiles:
    """Objects behind one fsspec protocol."""

    def __init__(self, scheme: str, **settings: Any) -> None:
        self.scheme = scheme
        self.fs = _filesystem(scheme, settings)

    def info(self, uri: str) -> ObjectInfo | None:
        """Size and ETag of an object, or None where there is none."""
        try:
            entry = self._entry(self._path(uri))
        except FileNotFoundError:
            return None
        return self._object(entry, uri) if entry["type"] == "file" else None

    def _entry(self, path: str) -> dict[str, Any]:
        if self.fs.async_impl:
            return fsspec.asyn.sync(self.fs.loop, self.fs._info, path, timeout=_INFO_S)
        return self.fs.info(path)

    def is_folder(self, uri: str) -> bool:
        """Whether there is such a folder or prefix."""
        return self.fs.isdir(self._path(uri))

    def read(
        self,
        uri: str,
        max_bytes: int | None = None,
        indexed: ObjectInfo | None = None,
        seconds: float | None = None,
    ) -> bytes:
        """The whole object; its size is looked at before.

        Clouds (gs://, az://) end with TimeoutError after `seconds`. What fsspec reads in the calling
        thread (memory://, sftp://) cannot be ended from outside: only its own time limits count.
        """
        if self.fs.async_impl:
            return fsspec.asyn.sync(self.fs.loop, self._fetch, uri, max_bytes, indexed, seconds)
        path = self._path(uri)
        if max_bytes is not None:
            self._refuse(uri, self.fs.info(path).get("size"), max_bytes, indexed)
        data = self.fs.cat_file(path)
        refuse_changed(shown(uri), indexed, len(data))
        return data

    async def _fetch(
        self, uri: str, max_bytes: int | None, indexed: ObjectInfo | None, seconds: float | None
    ) -> bytes:
        path = self._path(uri)
        async with asyncio.timeout(seconds):
            if max_bytes is not None:
                self._refuse(uri, (await self.fs._info(path)).get("size"), max_bytes, indexed)
            data = await self.fs._cat_file(path)
        refuse_changed(shown(uri), indexed, len(data))
        return data

    def _refuse(
        self, uri: str, size: int | None, max_bytes: int, indexed: ObjectInfo | None
    ) -> None:
        refuse_changed(shown(uri), indexed, size)
        refuse_over(shown(uri), size, max_bytes)

    def open(self, uri: str) -> BinaryIO:
        """The object as a file."""
        return self.fs.open(self._path(uri), "rb")

    def write(self, uri: str, data: bytes, seconds: float | None = None) -> None:
        """One upload."""
        self._make_parent(uri)
        self.fs.pipe_file(self._path(uri), data)

    def upload(self, local: Path, uri: str) -> None:
        """One upload, in parts where the store has them."""
        self._make_parent(uri)
        self.fs.put_file(str(local), self._path(uri))

    def names(self, uri: str) -> list[str]:
        """Objects directly in the folder, sorted, without hidden ones."""
        try:
            entries = self.fs.ls(self._path(uri), detail=True)
        except FileNotFoundError:
            return []
        names = (e["name"].rpartition("/")[2] for e in entries if e["type"] == "file")
        return sorted(name for name in names if name and name[0] != ".")

    def walk(self, uri: str, starts: str, depth: int | None) -> Iterator[ObjectInfo]:
        """Every object below the folder, folder by folder."""
        levels = None if depth is None else depth + 1
        root = self._path(uri).rstrip("/")
        for _, _, files in self.fs.walk(root, maxdepth=levels, detail=True, on_error="raise"):
            for _, entry in sorted(files.items()):
                if entry["name"][len(root) :].lstrip("/").startswith(starts):
                    yield self._object(entry)

    def remove(self, uri: str) -> None:
        """Remove an object; fine when it is not there."""
        if self.info(uri) is not None:
            self.fs.rm_file(self._path(uri))

    def remove_unfinished(self, uri: str) -> None:
        """Nothing: these stores show no unfinished uploads by fsspec."""

    def remove_all(self, uri: str) -> None:
        """Remove the folder and all in it; fine when it is not there."""
        if not self._path(uri).strip("/"):
            raise OutputError(f"refusing to remove all of {uri}: name a folder")
        if self.fs.isdir(self._path(uri)):
            self.fs.rm(self._path(uri), recursive=True)

    def arrow(self, uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """The same file system, for pyarrow."""
        arrow = arrow_filesystem(self.fs, lambda path: self.fs.open(path, "rb"))
        return arrow, self._path(uri)

    def _path(self, uri: str) -> str:
        return self.fs._strip_protocol(uri)

    def _make_parent(self, uri: str) -> None:
        self.fs.makedirs(self.fs._parent(self._path(uri)), exist_ok=True)

    def _object(self, entry: dict[str, Any], uri: str | None = None) -> ObjectInfo:
        etag = str(entry.get("etag") or entry.get("ETag") or "").strip('"') or None
        name = uri or self.fs.unstrip_protocol(entry["name"])
        return ObjectInfo(uri=name, size=entry.get("size"), etag=etag, modified=_modified(entry))


def _modified(entry: dict[str, Any]) -> float | None:
    """Seconds since 1970, where the file system tells: each calls it something else."""
    times = (entry.get(name) for name in ("mtime", "last_modified", "LastModified", "created"))
    for time in times:
        if isinstance(time, datetime):
            return time.timestamp()
        if isinstance(time, int | float):
            return float(time)
    return None


def _filesystem(scheme: str, settings: dict[str, Any]) -> Any:
    """The file system of a scheme, without any cache."""
    fresh = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        return fsspec.filesystem(scheme, **fresh, **settings)
    except ValueError as error:
        raise StorageError("unreadable", f"{scheme}:// is no known kind of address") from error
    except ImportError as error:
        message = f"{scheme}:// needs a package that is not installed: {error}"
        raise StorageError("unreadable", message) from error
