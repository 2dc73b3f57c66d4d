"""Progress of counting: a bar on a terminal, a log line now and then otherwise."""

import sys
import time

from tqdm import tqdm

from dinoidd.evaluation.counting import Counted
from dinoidd.log import logger

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows frames done and their rate; `seconds` is how long it took so far, or until it closed."""

    def __init__(self, frames: int) -> None:
        self._frames, self._done, self._problems = frames, 0, 0
        self._started = self._last_line = time.monotonic()
        self._bar = tqdm(total=frames, unit=" frames") if sys.stderr.isatty() else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def add(self, counted: Counted) -> None:
        self._done += counted.pairs
        self._problems += len(counted.problems)
        if self._bar is not None:
            self._bar.set_postfix(problems=self._problems, refresh=False)
            self._bar.update(counted.pairs)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            rate = 60 * self._done / self.seconds
            logger.info(
                f"{self._done:,} of {self._frames:,} frames ({self._done / self._frames:.1%}), "
                f"{rate:,.0f} a minute, {self._problems:,} problems"
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
