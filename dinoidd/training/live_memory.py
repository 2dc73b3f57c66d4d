"""Bytes of the tensors that are alive, as operators make them and the last reference drops them."""

import weakref
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_BLOCK = 512  # bytes; what CUDA's allocator rounds up to


class LiveMemory(TorchDispatchMode):
    """Counts the storages that operators return, real or fake, until they are freed.

    What a kernel takes for itself while it runs is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)))
        return result

    def add(self, *tensors: Tensor) -> None:
        """Count tensors that were there before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known[key] = size = -(-storage.nbytes() // _BLOCK) * _BLOCK
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self._known.pop(key)


class SavedTensors:
    """Bytes that autograd keeps for the backward pass; parameters and what they share are left out."""

    def __init__(self, model: nn.Module) -> None:
        self._left_out = {t.untyped_storage()._cdata for t in model.state_dict().values()}
        self._kept: dict[int, tuple[Any, int]] = {}

    def hooks(self) -> AbstractContextManager:
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())

    def forget(self) -> None:
        """The storages are held until then, so that none is counted for another."""
        self._kept.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._left_out:
            self._kept[storage._cdata] = (storage, storage.nbytes())
        return tensor
