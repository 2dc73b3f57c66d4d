"""The wiring to Ray: a function over many items on a cluster, in order, some at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import ray

from dinoidd.segment import cluster
from dinoidd.segment.pipeline import user_error

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 4  # items in hand for each CPU of the cluster
_TASK = {"num_cpus": 1, "max_retries": 3}


def map_on_ray(
    function: Callable[[T], R], items: Iterable[T], *, address: str | None = None
) -> Iterator[R]:
    """The results of `function`, in the order of `items`.

    Args:
        address: of a Ray cluster; None: RAY_ADDRESS, or an embedded Ray.

    Raises:
        ClusterError: the cluster does not answer, or a task died more often than it may.
        DinoiddError: what `function` raised.
    """
    cluster.connect(address)
    ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    shared = ray.put(function)
    pending: deque[ray.ObjectRef] = deque()
    try:
        for item in items:
            pending.append(_call.remote(shared, item))
            if len(pending) >= ahead:
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())
    except ray.exceptions.RayError as error:
        raise user_error(error) from error
    finally:
        for task in pending:
            ray.cancel(task)


@ray.remote(**_TASK)
def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)
