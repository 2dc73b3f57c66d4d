"""Progress of a run: a bar on a terminal, a log line now and then otherwise."""

import sys
import time

from tqdm import tqdm

from dinoidd.log import duration, logger
from dinoidd.segment.pace import Pace
from dinoidd.segment.tally import Tally

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows images done, rate, errors and time left. Rows of earlier sessions count as done, but not
    towards the rate."""

    def __init__(self, rows: int, done: int, *, interactive: bool | None = None) -> None:
        self._rows, self._done = rows, done
        self._tally = Tally()
        self._pace = Pace()
        self._last_line = time.monotonic()
        if interactive is None:
            interactive = sys.stderr.isatty()
        self._bar = None
        if interactive:
            self._bar = tqdm(total=rows, initial=done, unit=" images", smoothing=0.05)

    @property
    def unfinished(self) -> int | None:
        """Images that are done, as long as some are not."""
        done = self._done + self._tally.images
        return done if done < self._rows else None

    def add(self, tally: Tally) -> None:
        self._tally.add(tally)
        self._pace.add(tally.images)
        if self._bar is not None:
            self._bar.set_postfix(errors=self._tally.failed, refresh=False)
            self._bar.update(tally.images)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info(self.line())

    def line(self) -> str:
        """`1,280 of 10,000 images (12.8%), 3 errors, 21.3 images/s, 6m49s left`.

        Rate and time left are told from the second piece of work on: the first one waited for the
        model to load.
        """
        done = self._done + self._tally.images
        rate = self._pace.to_dict()["steady_images_per_second"]
        text = f"{done:,} of {self._rows:,} images ({done / self._rows:.1%})"
        text += f", {self._tally.failed:,} errors"
        if rate is None:
            return text
        return f"{text}, {rate:.1f} images/s, {duration((self._rows - done) / rate)} left"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
