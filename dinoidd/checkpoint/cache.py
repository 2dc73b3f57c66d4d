"""Checkpoints that are not on this machine: their header is read in place, their weights are
downloaded once a machine and kept."""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from dinoidd.checkpoint.header import Header, read_header
from dinoidd.errors import CheckpointError, StorageError
from dinoidd.storage import ObjectInfo, StorageOptions, Store, shown

CACHE_VARIABLE = "DINOIDD_CACHE"


def remote_header(uri: str, options: StorageOptions) -> Header:
    """The header of a checkpoint anywhere, without its weights.

    Raises:
        CheckpointError: it cannot be read, or is not a safetensors file.
    """
    folder, name, info = _find(uri, options)
    with folder.open_read(name) as file:

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        return read_header(read, _size(info, uri), shown(uri))


def local_checkpoint(uri: str, options: StorageOptions, weights: str = "") -> Path:
    """A local path of the file; a remote one is downloaded unless this version of it is cached.

    `weights`, a digest that the caller knows, tells versions apart where the store has no ETag. The
    cache is `$DINOIDD_CACHE`, or `~/.cache/dinoidd`. Processes of one machine that ask at the same time
    wait for one download.
    """
    if "://" not in uri:
        return Path(uri)
    folder, name, info = _find(uri, options)
    identity = shown(uri) if info.etag else uri  # a signature changes, the file does not
    version = hashlib.sha256(f"{identity} {info.size} {info.etag} {weights}".encode()).hexdigest()[
        :16
    ]
    target = cache_folder() / f"{version}-{shown(uri).rpartition('/')[2]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            partial = target.with_suffix(".partial")
            with folder.open_read(name) as source, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy, 16 << 20)
            if partial.stat().st_size != _size(info, uri):
                got = partial.stat().st_size
                raise CheckpointError(
                    f"{shown(uri)}: got {got:,} of {info.size:,} bytes; try again"
                )
            partial.replace(target)
    return target


def local_model(uri: str, options: StorageOptions) -> Path:
    """A local path of a checkpoint file, or of a Hugging Face directory with all its files."""
    if "://" not in uri or shown(uri).endswith((".pth", ".safetensors")):
        return local_checkpoint(uri, options)
    folder = Store.open(uri, options)
    names = [n for n in folder.names() if n.endswith((".json", ".safetensors"))]
    if not names:
        raise CheckpointError(f"{uri} holds neither config.json nor model.safetensors")
    files = [local_checkpoint(folder.uri_of(name), options) for name in names]
    key = hashlib.sha256(" ".join(file.name for file in files).encode()).hexdigest()[:16]
    target = cache_folder() / f"{key}-{uri.rstrip('/').rpartition('/')[2]}"
    target.mkdir(parents=True, exist_ok=True)
    for name, file in zip(names, files, strict=True):
        link = target / name
        if not link.exists():
            link.symlink_to(file)
    return target


def cache_folder() -> Path:
    folder = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/dinoidd")
    return folder.expanduser().absolute()  # links lead to it


def _find(uri: str, options: StorageOptions) -> tuple[Store, str, ObjectInfo]:
    path, mark, query = uri.partition("?") if uri.startswith("http") else (uri, "", "")
    parent, _, name = path.rpartition("/")
    name += mark + query  # the signature of a web address is part of its name
    try:
        folder = Store.open(parent or ("/" if uri.startswith("/") else "."), options)
        info = folder.info(name)
    except StorageError as error:
        raise CheckpointError(f"checkpoint {shown(uri)} cannot be read: {error}") from error
    if info is None:
        raise CheckpointError(f"no such checkpoint: {shown(uri)}")
    return folder, name, info


def _size(info: ObjectInfo, uri: str) -> int:
    if info.size is None:
        raise CheckpointError(f"the server does not tell the size of {shown(uri)}: download it")
    return info.size
