"""Where our Triton kernels run. Triton comes with torch's GPU builds for Linux; nothing else needs it."""

import importlib
import logging
from functools import cache
from types import ModuleType

import torch

_log = logging.getLogger(__name__)


def gpu_kernels(name: str) -> ModuleType | None:
    """The module of that name in `dinoidd.models`, or None where there is no Triton for a GPU."""
    if torch.version.cuda is None and torch.version.hip is None:
        return None
    try:
        return importlib.import_module(f"dinoidd.models.{name}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None


@cache
def run_on(device: torch.device) -> bool:
    """Whether kernels can be compiled and run there, which is tried once; a warning tells if not."""
    smallest = gpu_kernels("argmax_triton")
    if smallest is None:
        return False
    try:
        smallest.resized_argmax(torch.zeros(1, 1, 1, device=device), (1, 1))
    except torch.OutOfMemoryError:  # says nothing of kernels
        raise
    except Exception as error:
        _log.warning(
            "the model runs in plain torch, which is slower: Triton's kernels do not run on %s: %s "
            "(they need a C compiler and Python's headers: gcc, python3-dev)",
            device,
            error,
        )
        return False
    return True
