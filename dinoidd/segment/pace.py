"""How fast a session was, its start-up apart."""

import time
from typing import Any

_UNSETTLED = 8  # pieces, at most; see `Pace`
_SHARE = 4  # of all pieces, a quarter at most


class Pace:
    """Counts images from now on, in pieces of work.

    Starting processes and loading the model make a short run look slow, so a steady rate is told beside
    the rate of everything. The first pieces are left out of it: while the first of them waited for a
    process that writes, the model has gone on, so that they come faster than it works.
    """

    def __init__(self) -> None:
        self._started = self._last_at = time.monotonic()
        self._early: list[tuple[float, int]] = []  # when each of the first came; images with it
        self._images = self._pieces = 0

    def add(self, images: int) -> None:
        self._last_at = time.monotonic()
        self._images += images
        self._pieces += 1
        if len(self._early) <= _UNSETTLED:
            self._early.append((self._last_at, self._images))

    def to_dict(self) -> dict[str, Any]:
        """Images, seconds, and rates; the steady rate is None for a single piece."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        steady, over = self._steady()
        return {
            "images": self._images,
            "seconds": seconds,
            "startup_seconds": self._early[0][0] - self._started if self._early else 0.0,
            "images_per_second": self._images / seconds,
            "steady_images_per_second": steady,
            "steady_images": over,
        }

    def _steady(self) -> tuple[float | None, int]:
        """The rate after the start, and how many images it rests on."""
        if self._pieces < 2:
            return None, 0
        since, before = self._early[min(_UNSETTLED, self._pieces // _SHARE)]
        images = self._images - before
        return images / max(self._last_at - since, 1e-9), images
