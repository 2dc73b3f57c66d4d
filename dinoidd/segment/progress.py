"""Progress of a run: a bar on a terminal, a log line now and then otherwise."""

import sys
import time

from tqdm import tqdm

from dinoidd.log import logger
from dinoidd.segment.pace import duration
from dinoidd.segment.tally import Tally

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows images done, rate, errors and time left. Rows of earlier sessions count as done, but not
    towards the rate."""

    def __init__(self, rows: int, done: int, *, interactive: bool | None = None) -> None:
        self._rows, self._done = rows, done
        self._tally = Tally()
        self._started = self._last_line = time.monotonic()
        if interactive is None:
            interactive = sys.stderr.isatty()
        self._bar = None
        if interactive:
            self._bar = tqdm(total=rows, initial=done, unit=" images", smoothing=0.05)

    def add(self, tally: Tally) -> None:
        self._tally.add(tally)
        if self._bar is not None:
            self._bar.set_postfix(errors=self._tally.failed, refresh=False)
            self._bar.update(tally.images)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info(self.line())

    def line(self) -> str:
        """`1,280 of 10,000 images (12.8 %), 21.3 images/s, 3 errors, 6m49s left`."""
        done = self._done + self._tally.images
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self._tally.images / seconds
        left = duration((self._rows - done) / rate) if rate else "unknown time"
        share = done / self._rows
        return (
            f"{done:,} of {self._rows:,} images ({share:.1%}), {rate:.1f} images/s, "
            f"{self._tally.failed:,} errors, {left} left"
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
