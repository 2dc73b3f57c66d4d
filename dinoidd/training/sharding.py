"""A model spread over workers (FSDP2): each holds a part of every tensor, and gathers layer by layer.

FSDP and its tensors are imported where a model is sharded: that takes a second of every process.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from dinoidd.errors import TrainingError
from dinoidd.models import Segmenter
from dinoidd.training.recompute import layers
from dinoidd.training.world import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(model: Segmenter, device: torch.device) -> Segmenter:
    """The same model, in place, over all workers of the process group. Gradients are averaged.

    A unit is a backbone block, an interaction or a decoder layer; what is left is one more. FSDP takes
    each to the device and leaves this worker's part there, so that a model on the CPU is never whole
    on the device.

    Args:
        device: of this worker; the current one where it is a GPU.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all its parts. Every worker has to ask at the same time."""
    return tensor.full_tensor() if _is_part(tensor) else tensor


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in the device, dtype and parts of another one."""
    moved = tensor.to(like.device, like.dtype)
    if not _is_part(like):
        return moved
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(moved, like.device_mesh, like.placements)


def free_gathered(model: torch.nn.Module) -> None:
    """Let go of what a forward without a backward leaves whole: a sharded model's last unit."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(model, fsdp.FSDPModule):
        model.reshard()


def together(batches: Iterator[Any], world: World) -> Iterator[tuple[Any, bool]]:
    """Batches, and whether each counts: who has none left repeats the last one until all are done.

    A forward pass of a sharded model needs every worker.
    """
    batch: Any = None
    while True:
        following = next(batches, None)
        if not world.sum(np.array([following is not None], np.int64))[0]:
            return
        batch = batch if following is None else following
        if batch is None:
            raise TrainingError(
                f"worker {world.rank} has no validation image: a sharded model needs one for each of "
                f"{world.size} workers; use fewer workers or more validation images"
            )
        yield batch, following is not None


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether parameters are spread over workers."""
    return any(_is_part(parameter) for parameter in model.parameters())


def _is_part(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether it is one worker's part; where nobody has imported that kind, there is none."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)
