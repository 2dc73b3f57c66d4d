"""The workers of a run, as one of them sees them."""

from typing import Protocol

import numpy as np


class World(Protocol):
    """Which worker this is, and sums over all of them."""

    rank: int
    size: int

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over the workers, element by element, of a float64 or int64 array."""
        ...


class Alone:
    """A run in one process."""

    rank = 0
    size = 1

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values
