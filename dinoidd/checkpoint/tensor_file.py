"""Tensor files read one tensor at a time: `.pth`, safetensors, and a Hugging Face directory."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dinoidd.errors import CheckpointError

_MIN_MAPPED_BYTES = 16 << 20
# What torch raises on a damaged file, besides UnpicklingError.
_UNREADABLE = (
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
    LookupError,
    AttributeError,
    TypeError,
)


class TensorFile:
    """A file of tensors, mapped into memory and copied out one by one.

    Pages that were read stay resident while the file is mapped, so it is opened anew after every
    twentieth of its size: loading float32 as bfloat16 would otherwise peak at three times the result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: list[str] = []
        self._read: Callable[[str], Tensor] | None = None
        self._budget = 0
        self._open()

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def copy(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of its own memory; floating ones as `dtype` (None: as stored)."""
        if self._budget <= 0:
            self._read = None  # unmaps the file before it is mapped again
            self._open()
        assert self._read is not None
        source = self._read(name)
        self._budget -= source.nbytes
        target = dtype if dtype is not None and source.is_floating_point() else source.dtype
        return source.to(target, copy=True)

    def _open(self) -> None:
        if not self.path.is_file():
            raise CheckpointError(f"no such checkpoint file: {self.path}")
        self._budget = max(_MIN_MAPPED_BYTES, self.path.stat().st_size // 20)
        if self.path.suffix == ".safetensors":
            file = _open_safetensors(self.path)
            self._names, self._read = list(file.keys()), file.get_tensor
        else:
            tensors = _open_pth(self.path)
            self._names, self._read = list(tensors), tensors.__getitem__


class ShardedTensors:
    """Several files that together hold one model, as Hugging Face writes large ones."""

    def __init__(self, files: list[TensorFile]) -> None:
        self._file_of = {name: file for file in files for name in file.names}

    @property
    def names(self) -> list[str]:
        return list(self._file_of)

    def copy(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        return self._file_of[name].copy(name, dtype)


Tensors = TensorFile | ShardedTensors


def open_hugging_face(directory: Path) -> Tensors:
    """The tensors of a Hugging Face model directory, of one file or of several shards.

    Raises:
        CheckpointError: a file that the directory needs is missing or broken.
    """
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return TensorFile(directory / "model.safetensors")
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r}") from error
    return ShardedTensors([TensorFile(directory / name) for name in names])


def _open_safetensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def _open_pth(path: Path) -> dict[str, Tensor]:
    """Pickled code is never run: `weights_only` admits tensors and plain containers."""
    try:
        loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        what = "it is damaged, or holds objects that are not tensors (pickled code is never run)"
        raise CheckpointError(f"{path} is not a PyTorch file of tensors: {what}") from error
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a PyTorch file of tensors: {reason}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds no table of tensors, but {type(loaded).__name__}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"entry {name!r} is {type(value).__name__}"
            raise CheckpointError(f"{path} holds no flat table of named tensors: {what}")
    return loaded
