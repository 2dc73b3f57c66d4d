"""How this process keeps memory between forwards on a CPU."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_ALL = 2**31 - 1  # bytes; mallopt takes an int
_GLIBCS_OWN = 32 << 20  # the most that its threshold adapts itself to


def keep_freed_memory() -> None:
    """Let freed tensors' memory serve the next ones instead of going back to the system.

    glibc maps every large tensor anew, and the system clears its pages one by one: in bfloat16 that
    takes a third of a forward. The process then stays at its peak. Does nothing with another C library.
    """
    _set(_MMAP_THRESHOLD, _ALL)
    _set(_TRIM_THRESHOLD, _ALL)


@contextmanager
def glibcs_own_way() -> Iterator[None]:
    """Large tensors are mapped anew for a while, as in a process where nothing was set: for what the
    network is compared with."""
    _set(_MMAP_THRESHOLD, _GLIBCS_OWN)
    try:
        yield
    finally:
        _set(_MMAP_THRESHOLD, _ALL)


def _set(parameter: int, value: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(parameter, value)
