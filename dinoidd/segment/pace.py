"""How fast a session was, its start-up apart."""

import time
from typing import Any


class Pace:
    """Counts images from now on, in pieces of work.

    Starting processes and loading the model make a short run look slow, so the rate after the first
    finished piece is told beside the rate of everything.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first_at = self._last_at = self._started
        self._first = self._images = 0

    def add(self, images: int) -> None:
        self._last_at = time.monotonic()
        if self._images == 0:
            self._first_at, self._first = self._last_at, images
        self._images += images

    def to_dict(self) -> dict[str, Any]:
        """Images, seconds, and rates; the steady rate is None for a single piece."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        after = self._images - self._first
        steady = after / max(self._last_at - self._first_at, 1e-9)
        return {
            "images": self._images,
            "seconds": seconds,
            "startup_seconds": self._first_at - self._started,
            "images_per_second": self._images / seconds,
            "steady_images_per_second": steady if after else None,
        }
