"""CUDA's memory in segments that grow, so that fragments of it are not lost."""

import os

_NAME = "PYTORCH_CUDA_ALLOC_CONF"
_NAMES = (_NAME, "PYTORCH_ALLOC_CONF")  # torch reads both
_VALUE = "expandable_segments:True"


def allocator_environment() -> dict[str, str]:
    """What a process's environment should say: what this one's does, or else ours."""
    return {n: os.environ[n] for n in _NAMES if n in os.environ} or {_NAME: _VALUE}


def expandable_segments() -> None:
    """Set it for this process, unless somebody has said otherwise. To be called before CUDA is used."""
    os.environ.update(allocator_environment())
