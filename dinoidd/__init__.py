"""dinoidd: DINOv3 segmentation of street images, from a bucket to Parquet, on Ray.

`from dinoidd import Segmenter` segments images in Python; `Windows` are how it may look at them. They are
imported when they are asked for, so that `dinoidd.models` needs nothing but torch.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinoidd.config import Windows
    from dinoidd.segmenter import Segmenter

# torch then asks Linux for large pages for large tensors, whose memory is new in every forward: on a CPU
# a fifth of its time went into clearing small ones. Read when torch makes its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["Segmenter", "Windows", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Segmenter":
        from dinoidd.segmenter import Segmenter

        return Segmenter
    if name == "Windows":
        from dinoidd.config import Windows

        return Windows
    raise AttributeError(f"module 'dinoidd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
