"""An end for work that never ends, also where no Python can interrupt it.

A decoder that loops in native code holds the interpreter's lock, so no thread and no signal handler
would run. Python's faulthandler has a timer in a thread of its own that needs no lock.
"""

import faulthandler
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_STDERR = 2
# The timer is the process's, so what runs under it is counted for the process.
_lock = threading.Lock()
_running = 0


@contextmanager
def ends_within(seconds: float | None, mark: Path | None = None) -> Iterator[None]:
    """End this process, with the stack of each thread on stderr, if the body takes longer.

    Of bodies that run at a time in several threads, the time counts from when one last began or ended.

    Args:
        seconds: None: no limit.
        mark: where the stacks go instead, of a body that runs by itself. A file that is not empty says
            that the time was over; without a death it is gone again.
    """
    if seconds is None:
        yield
        return
    file = _opened(mark)
    _count(1, seconds, file)
    try:
        yield
    finally:
        _count(-1, seconds, file)
        if mark is not None and file is not None:
            file.close()
            mark.unlink(missing_ok=True)


def _opened(mark: Path | None) -> BinaryIO | None:
    try:
        return None if mark is None else mark.open("wb")
    except OSError:  # a full disk must not become an image's error
        return None


def _count(change: int, seconds: float, file: BinaryIO | None) -> None:
    global _running
    with _lock:
        _running += change
        if _running:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file or _STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()
