"""Where Triton is: it comes with torch's GPU builds for Linux, and nowhere else is it needed."""

import importlib
from types import ModuleType

import torch


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
