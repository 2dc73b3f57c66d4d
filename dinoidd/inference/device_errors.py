"""What an error says of the device: memory was short, or nothing works there any more."""

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


def is_lost(device: torch.device, error: Exception) -> bool:
    """Whether nothing works on the device any more, until the process has ended."""
    if is_short_of_memory(error):  # which a lost device may say too
        return not _works(device)
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "cuDNN error"))


def _works(device: torch.device) -> bool:
    try:
        return bool(torch.ones(1, device=device).item())
    except Exception as error:
        return is_short_of_memory(error)
