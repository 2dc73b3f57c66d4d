"""Progress of a training: a bar on a terminal, a log line now and then otherwise."""

import math
import sys
import time

from tqdm import tqdm

from dinoidd.log import duration, logger
from dinoidd.training.records import StepRecord

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts optimiser steps of the whole run; time left includes validation as it was so far."""

    def __init__(
        self, steps: int, done: int, epochs: int, *, interactive: bool | None = None
    ) -> None:
        self._steps, self._first, self._epochs = steps, done, epochs
        self._started = self._last_line = time.monotonic()
        if interactive is None:
            interactive = sys.stderr.isatty()
        self._bar = None
        if interactive:
            self._bar = tqdm(total=steps, initial=done, unit=" steps", smoothing=0.0)

    def step(self, record: StepRecord) -> None:
        if self._bar is not None:
            self._bar.set_description(f"epoch {record.epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(_loss_and_speed(record), refresh=False)
            self._bar.update(record.step - self._bar.n)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info(self.line(record))

    def line(self, record: StepRecord) -> str:
        """`epoch 3/20, step 280 of 2,000 (14.0%), loss 0.7123, 2.4 images/s, 12m30s left`."""
        return (
            f"epoch {record.epoch}/{self._epochs}, step {record.step:,} of {self._steps:,} "
            f"({record.step / self._steps:.1%}), {_loss_and_speed(record)}, "
            f"{duration(self.seconds_left(record.step))} left"
        )

    def seconds_left(self, step: int) -> float:
        """To the last step of the last epoch, at this session's pace."""
        took = (time.monotonic() - self._started) / max(1, step - self._first)
        return took * max(0, self._steps - step)

    def say(self, line: str) -> None:
        """A log line that does not tear the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            logger.info(line)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _loss_and_speed(record: StepRecord) -> str:
    """A process's first step says nothing of the speed."""
    loss, speed = f"loss {record.loss:.4f}", record.images_per_second
    return loss if math.isnan(speed) else f"{loss}, {speed:.1f} images/s"
