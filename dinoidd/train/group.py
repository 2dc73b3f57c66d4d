"""The workers of a run as torch.distributed knows them."""

from functools import partial

import numpy as np
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from dinoidd.training.trainer import Wrap


class Group:
    """A World whose sums go through the process group; for NCCL they pass through the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()
        self._device = device

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over the workers, element by element, of a float64 or int64 array."""
        tensor = torch.from_numpy(np.array(values)).to(self._device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()


def averaging(device: torch.device) -> Wrap:
    """Lets workers average their gradients (DDP).

    Each keeps the running statistics of its own images: the first one's are not everybody's, and
    `fit` averages them after an epoch.
    """
    devices = [device] if device.type == "cuda" else None
    return partial(DistributedDataParallel, device_ids=devices, broadcast_buffers=False)
