"""How this process keeps memory between forwards on a CPU."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_LARGE = 2**31 - 1  # bytes; mallopt takes an int


def keep_freed_memory() -> None:
    """Let freed tensors' memory serve the next ones instead of going back to the system.

    glibc maps every large tensor anew, and the system clears its pages one by one: in bfloat16 that
    takes a third of a forward. The process then stays at its peak. Does nothing with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, _LARGE)
