"""The memory of a run: its peak, and what to do where it is not enough."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dinoidd.errors import TrainingError
from dinoidd.training.config import TrainConfig

_CPU_MESSAGE = "can't allocate memory"


def reset_peak(device: torch.device) -> None:
    """Start a new peak; the CPU's is that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most that was allocated on the device; of the process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def out_of_memory_told(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Turn the device's out-of-memory error into a TrainingError that says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_advice(config, device)) from error
    except RuntimeError as error:
        if _CPU_MESSAGE not in str(error):
            raise
        raise TrainingError(_advice(config, device)) from error


def _advice(config: TrainConfig, device: torch.device) -> str:
    size = config.image_size or "the model's own"
    remedies = [f"lower micro_batch (now {config.network_batch}) or image_size (now {size})"]
    if not config.activation_checkpointing and config.trained != "classifier":
        remedies.append("set activation_checkpointing=true")
    if config.sharding == "none" and not config.uses_cache:
        remedies.append("spread the model over several workers with sharding=fsdp")
    return f"out of memory on {device}{_figures(device)}: {', or '.join(remedies)}"


def _figures(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    taken, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    figures = (f"{n / 2**30:.1f} GiB {what}" for n, what in _named(total, free, taken, peak))
    return f" ({', '.join(figures)})"


def _named(total: int, free: int, taken: int, peak: int) -> list[tuple[int, str]]:
    return [
        *((total, "in all"), (free, "free")),
        *((taken, "held by this worker"), (peak, "at its peak")),
    ]
