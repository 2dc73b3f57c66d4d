"""Files of a run rewritten by Ray tasks, a bounded number at a time."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import ray

from dinoidd.errors import StorageError
from dinoidd.log import duration, logger
from dinoidd.segment import cluster
from dinoidd.segment.flow import InStage
from dinoidd.segment.pipeline import user_error
from dinoidd.segment.standstill import Standstill

_CPUS = 0.5  # it copies bytes, and waits for the store
_RETRIES = 5
_AT_ONCE = 256  # more than a cluster has room for would only fill the driver
_LINE_S = 10.0  # between lines that say how far it is


def run_tasks(function: Callable[..., None], calls: Iterable[dict[str, Any]]) -> None:
    """Call the function with each set of arguments, a file each, in any order.

    A call may be made again after the death of its process, so it has to be repeatable.

    Raises:
        DinoiddError: what a call raised that is not a bug; others may have been made.
    """
    remote = ray.remote(num_cpus=_CPUS, max_retries=_RETRIES, retry_exceptions=[StorageError])(
        function
    )
    todo, running = list(calls), list[ray.ObjectRef]()
    told = _Told(len(todo))
    for arguments in todo:
        if len(running) == _AT_ONCE:
            running = _wait_for_one(running, told)
        running.append(remote.remote(**arguments))
    while running:
        running = _wait_for_one(running, told)


class _Told:
    """Says now and then how many files are done, and when none is any more."""

    def __init__(self, files: int) -> None:
        self._files, self._done = files, 0
        self._started = self._last_line = time.monotonic()
        self._standstill = Standstill(cluster.room)

    def add(self, running: int) -> None:
        """Another one is done."""
        self._done += 1
        if time.monotonic() - self._last_line >= _LINE_S:
            self._last_line = time.monotonic()
            left = (self._last_line - self._started) / self._done * (self._files - self._done)
            logger.info(f"{self._done:,} of {self._files:,} files, {duration(left)} left")
        self.wait(running)

    def wait(self, running: int) -> None:
        """Still so many are being worked on."""
        stage = InStage(running=running, waiting=0, finished=self._done)
        if sentence := self._standstill.look({"merge": stage}):
            logger.warning(sentence)


def _wait_for_one(running: list[ray.ObjectRef], told: _Told) -> list[ray.ObjectRef]:
    while not (ready := ray.wait(running, num_returns=1, timeout=_LINE_S))[0]:
        told.wait(len(running))
    (done,), others = ready
    try:
        ray.get(done)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error
    told.add(len(others))
    return others
