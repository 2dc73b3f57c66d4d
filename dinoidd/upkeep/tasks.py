"""Files of a run rewritten by Ray tasks, a bounded number at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import ray

from dinoidd.errors import StorageError
from dinoidd.segment.pipeline import user_error

_CPUS = 0.5  # it copies bytes, and waits for the store
_RETRIES = 5
_AT_ONCE = 256  # more than a cluster has room for would only fill the driver


def run_tasks(function: Callable[..., None], calls: Iterable[dict[str, Any]]) -> None:
    """Call the function with each set of arguments, in any order.

    A call may be made again after the death of its process, so it has to be repeatable.

    Raises:
        DinoiddError: what a call raised that is not a bug; others may have been made.
    """
    remote = ray.remote(num_cpus=_CPUS, max_retries=_RETRIES, retry_exceptions=[StorageError])(
        function
    )
    running: list[ray.ObjectRef] = []
    for arguments in calls:
        if len(running) == _AT_ONCE:
            running = _wait_for_one(running)
        running.append(remote.remote(**arguments))
    while running:
        running = _wait_for_one(running)


def _wait_for_one(running: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
    (done,), others = ray.wait(running, num_returns=1)
    try:
        ray.get(done)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error
    return others
