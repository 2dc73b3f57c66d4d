"""CUDA's memory in segments that grow, so that fragments of it are not lost."""

import os

_NAME = "PYTORCH_CUDA_ALLOC_CONF"
_NAMES = (_NAME, "PYTORCH_ALLOC_CONF")  # torch reads both
_VALUE = "expandable_segments:True"


def allocator_environment() -> dict[str, str]:
    """What to add to a process's environment; empty where this one's already says something."""
    return {} if any(name in os.environ for name in _NAMES) else {_NAME: _VALUE}


def expandable_segments() -> None:
    """Set it for this process, unless somebody has said otherwise. To be called before CUDA is used."""
    os.environ.update(allocator_environment())
