"""CUDA's memory in segments that grow, so that fragments of it are not lost."""

import os

ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


def expandable_segments() -> None:
    """Set it for this process, unless somebody has said otherwise. To be called before CUDA is used."""
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
