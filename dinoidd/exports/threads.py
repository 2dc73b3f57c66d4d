"""One function over a stream in threads, in order, with few items in memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dinoidd.ahead import ahead

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 4  # items in hand, a thread


def map_in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """The results of `function` in the order of `items`, which are taken as they are needed.

    Pillow and the stores let other threads work while they decode, encode, read and write.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from ahead(pool, function, items, threads * _AHEAD - 1)
    finally:
        pool.shutdown(cancel_futures=True)
