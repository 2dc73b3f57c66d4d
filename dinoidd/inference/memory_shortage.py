"""Which errors say that memory was short, whoever asked for it."""

import re

import torch

# torch's allocators have an error of their own. cuBLAS, cuDNN, Triton and the driver ask past them, and
# what they raise looks like a lost device but for these words.
_WORDS = re.compile(r"out of memory|ALLOC(ATION)?_FAILED|can't allocate memory", re.IGNORECASE)


def is_short_of_memory(error: Exception) -> bool:
    """Whether less work at a time may go well where this was raised."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def works(device: torch.device) -> bool:
    """Whether a device that failed still computes; one that is lost fails at all that it is asked."""
    try:
        return bool(torch.ones(1, device=device).item())
    except Exception as error:
        return is_short_of_memory(error)
