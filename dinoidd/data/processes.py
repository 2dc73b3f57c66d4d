"""One function over many items in several processes, in order, without holding all the items."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 8  # items in hand, a process: enough to keep it busy, few enough to forget
_FEW = 16  # fewer items are not worth the start of a process


def map_in_processes(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Iterator[R]:
    """The results of `function`, in the order of `items`.

    Args:
        function: picklable; it catches its own errors.
        items: taken as they are needed.
        workers: processes; None: one a CPU core; 1: this process itself.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    workers = workers or cores()
    iterator = iter(items)
    first = list(islice(iterator, _FEW))
    if workers == 1 or len(first) < _FEW:
        yield from map(function, first)
        yield from map(function, iterator)
        return
    # Not forked: a caller may hold threads and locks (torch, Ray) that do not survive a fork.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_begin,
    )
    try:
        pending: deque[Future[R]] = deque(pool.submit(function, item) for item in first)
        for item in iterator:
            pending.append(pool.submit(function, item))
            if len(pending) >= workers * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Of a process: Ctrl-C is its parent's to handle, and it ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
