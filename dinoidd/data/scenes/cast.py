"""The things of a scene and the order in which they are painted."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from dinoidd.data.scenes.camera import Span
from dinoidd.data.scenes.canvas import Canvas


class Item(NamedTuple):
    """Something with a footprint on the ground, and how to paint it."""

    x: Span
    z: Span
    paint: Callable[[], None]


class Cast:
    """The things of a scene, painted so that near ones hide far ones."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.canvas, self.rng = canvas, rng
        self._items: list[Item] = []

    def add(self, x: Span, z: Span, draw: Callable[..., None], *args: object) -> None:
        """Keep `draw(canvas, rng, *args)` for its turn; `x` and `z` are its footprint in metres."""
        self._items.append(Item(x, z, partial(draw, self.canvas, self.rng, *args)))

    def add_thin(self, x: float, z: float, draw: Callable[..., None], *args: object) -> None:
        """Keep `draw(canvas, rng, x, z, *args)`: a post, a person, anything of small footprint."""
        self.add((x - 0.2, x + 0.2), (z, z + 0.3), draw, x, z, *args)

    def draw(self) -> None:
        """Paint everything, each after what it hides."""
        for index in painting_order(self._items):
            self._items[index].paint()

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)


def painting_order(items: Sequence[Item]) -> Iterator[int]:
    """Indices of the items such that each comes after those that it hides from the camera.

    One hides another when it stands beside it and nearer to the line of sight ahead, or when it ends
    before the other begins; but what is nearer and farther aside hides nothing. Where items hide each
    other in a ring, the farthest comes first.
    """
    if not items:
        return
    left, right = np.array([item.x for item in items]).T
    near, far = np.array([item.z for item in items]).T
    inside = ((left >= right[:, None]) & (left > 0)) | ((right <= left[:, None]) & (right < 0))
    hides = (inside & (near[:, None] < far)) | (~inside.T & (far[:, None] <= near))
    turn = (
        hides.sum(axis=1) * 1000.0 - near
    )  # first those that hide nothing unpainted, then far ones
    for _ in items:
        index = int(np.argmin(turn))
        yield index
        turn -= 1000.0 * hides[:, index]
        turn[index] = np.inf
