"""What a run tells the person who started it: from the first worker, wherever that is, to the driver."""

import logging
import threading
import time
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dinoidd.log import logger
from dinoidd.training.config import TrainConfig
from dinoidd.training.progress import Progress
from dinoidd.training.record import RunRecorder
from dinoidd.training.records import EpochRecord, StepRecord
from dinoidd.training.training_log import epoch_line

_SECONDS_BETWEEN = 0.5  # steps that are told, and looks for them
_LAST_SECONDS = 60.0  # for what the workers told last, after a run that ended well
_CUT_SECONDS = 5.0  # after one that did not


class Box:
    """Holds messages until the driver takes them. An actor of Ray."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._failure: Exception | None = None

    def put(self, message: Any) -> None:
        self._messages.append(message)

    def take(self) -> list[Any]:
        messages, self._messages = self._messages, []
        return messages

    def fail(self, failure: Exception) -> None:
        """Keep the first reason why going on is of no use."""
        self._failure = self._failure or failure

    def failure(self) -> list[Exception]:
        """That reason, or nothing. In a list, because Ray raises exceptions that it hands on."""
        return [] if self._failure is None else [self._failure]


def open_box() -> Any:
    """The actor's handle; it lives as long as somebody holds that, beside the driver: a node that is lost
    takes no more along than the workers that it held."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Box).remote()


class RelayedRecorder:
    """A Recorder that writes files and tells the driver."""

    def __init__(self, files: RunRecorder, box: Any, first_step: int) -> None:
        self._files, self._box = files, box
        self._told = 0.0
        self.last: EpochRecord | None = None
        self._put = box.put.remote(first_step)

    def step(self, record: StepRecord) -> None:
        self._files.step(record)
        if time.monotonic() - self._told >= _SECONDS_BETWEEN:
            self._told = time.monotonic()
            self._put = self._box.put.remote(record)

    def epoch(self, record: EpochRecord) -> None:
        self._files.epoch(record)
        self.last = record
        self._put = self._box.put.remote(replace(record, pictures=[]))

    def close(self) -> None:
        self._files.close()
        # This process may end at once, and what is on its way with it. Messages arrive in order.
        ray.wait([self._put], timeout=_LAST_SECONDS)


class Nobody:
    """The Recorder of the other workers."""

    def step(self, record: StepRecord) -> None: ...
    def epoch(self, record: EpochRecord) -> None: ...
    def close(self) -> None: ...


class RelayedWarnings(logging.Handler):
    """Sends a worker's warnings to the driver."""

    def __init__(self, box: Any) -> None:
        super().__init__(logging.WARNING)
        self._box = box

    def emit(self, record: logging.LogRecord) -> None:
        self._box.put.remote(record.getMessage())


class Follower:
    """Shows what comes out of the box, in a thread of the driver, while the block runs."""

    def __init__(self, box: Any, config: TrainConfig, steps_per_epoch: int) -> None:
        self._box, self._config = box, config
        self._steps = config.epochs * steps_per_epoch
        self._progress: Progress | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=_LAST_SECONDS if kind is None else _CUT_SECONDS)
        if self._progress is not None:
            self._progress.close()

    def _follow(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(_SECONDS_BETWEEN)
            for message in self._taken():
                self._show(message)

    def _taken(self) -> list[Any]:
        """What is in the box; nothing where it is gone: then the run says why.

        However late: on a busy machine the box takes long to start, and an answer that nobody waits for
        takes its messages with it.
        """
        try:
            messages: list[Any] = ray.get(self._box.take.remote())
        except ray.exceptions.RayError:
            self._ended.set()
            return []
        return messages

    def _show(self, message: Any) -> None:
        if isinstance(message, int):  # workers began at that step
            if self._progress is not None:
                self._progress.close()
                logger.info("the workers start again, after step %d", message)
            self._progress = Progress(self._steps, message, self._config.epochs)
        elif isinstance(message, str):
            logger.warning("%s", message)
        elif self._progress is not None and isinstance(message, StepRecord):
            self._progress.step(message)
        elif self._progress is not None:
            left = self._progress.seconds_left(message.step)
            self._progress.say(epoch_line(message, self._config.epochs, left))
