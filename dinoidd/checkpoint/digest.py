"""The identity of weights: a digest over them, and whether a file still holds those it tells of."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from dinoidd.checkpoint.cache import cache_folder
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.errors import CheckpointError

_NOTED_BYTES = 1 << 30  # a smaller file is read again in a second or two


def weights_digest(state: dict[str, Tensor]) -> str:
    """A sha256 over every tensor's name, dtype, shape and bytes."""
    return _digest(state, lambda name: state[name].detach().cpu())


def verify_weights(path: Path, names: Iterable[str], weights: str) -> None:
    """Check that the named tensors of a local file have the digest that its header tells.

    One tensor is in memory at a time. A file of a GiB or more is read once a machine: the cache folder
    notes that it was verified, under its path, size, inode and times. Processes that begin together read
    it each, as does every one where the cache folder cannot be written.

    Raises:
        CheckpointError: it holds other ones.
    """
    noted = path.stat().st_size >= _NOTED_BYTES
    note = _note(path, weights)
    if noted and note.exists():
        return
    found = _digest(names, TensorFile(path).copy)
    if found != weights:
        raise damaged(path, found, weights)
    if noted:
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()


def damaged(path: Path, found: str, weights: str) -> CheckpointError:
    """What is told of a file whose tensors do not have the digest of its header."""
    return CheckpointError(
        f"{path} is damaged: its tensors are not those it was written with (weights {found[:12]}, its "
        f"header says {weights[:12]}). Remove it, and copy or make it again"
    )


def _digest(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _note(path: Path, weights: str) -> Path:
    file = path.stat()  # its ctime moves with whatever changes the file, and cannot be set back
    version = f"{file.st_size} {file.st_ino} {file.st_mtime_ns} {file.st_ctime_ns}"
    identity = os.fsencode(f"{path.resolve()} {version} {weights}")
    return cache_folder() / "verified" / hashlib.sha256(identity).hexdigest()
