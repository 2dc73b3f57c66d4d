"""The plan of a street: lanes, divider, and the two sides."""

from dataclasses import dataclass

import numpy as np

from dinoidd.data.scenes.camera import Span

CURB_M = 0.22
CURB_HEIGHT_M = 0.16


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A lane's middle, and whether its traffic drives away from the camera."""

    x: float
    away: bool


@dataclass(frozen=True, kw_only=True)
class Shoulder:
    """One side of the road, from its edge outwards; metres."""

    side: int  # -1 left, 1 right
    edge: float
    parking: float  # width, 0 = none
    walk: float  # width, 0 = none: no curb either

    @property
    def curb(self) -> float:
        return self.edge + self.side * self.parking

    @property
    def verge(self) -> float:
        """Where plots begin."""
        return self.curb + self.side * (self.walk + CURB_M if self.walk else 0.3)


@dataclass(frozen=True, kw_only=True)
class Street:
    """Where everything lies across the street; traffic keeps left."""

    lanes: tuple[Lane, ...]
    lane_width: float
    left: Shoulder
    right: Shoulder
    divider: Span | None  # between the two directions
    urban: float  # 0 = open country, 1 = city


def plan_street(rng: np.random.Generator) -> Street:
    """Lay out a street around a camera that drives at x = 0."""
    width, urban = float(rng.uniform(3.1, 3.7)), float(rng.uniform(0, 1))
    own, oncoming = int(rng.integers(1, 4)), int(rng.integers(0, 3))
    first = -int(rng.integers(own)) * width + float(rng.uniform(-0.3, 0.3))
    gap = float(rng.uniform(1.0, 2.2)) if oncoming and rng.random() < 0.4 else 0.0
    lanes = [Lane(x=first + i * width, away=True) for i in range(own)]
    middle = lanes[-1].x + width / 2
    start = middle + gap + width / 2
    lanes += [Lane(x=start + i * width, away=False) for i in range(oncoming)]
    return Street(
        lanes=tuple(lanes),
        lane_width=width,
        left=_shoulder(rng, -1, lanes[0].x - width / 2 - 0.3, urban),
        right=_shoulder(rng, 1, lanes[-1].x + width / 2 + 0.3, urban),
        divider=(middle + 0.15, middle + gap - 0.15) if gap else None,
        urban=urban,
    )


def _shoulder(rng: np.random.Generator, side: int, edge: float, urban: float) -> Shoulder:
    parking = float(rng.uniform(1.6, 3.0)) if rng.random() < 0.5 else 0.0
    walk = float(rng.uniform(1.4, 3.6)) if rng.random() < 0.3 + 0.7 * urban else 0.0
    return Shoulder(side=side, edge=edge, parking=parking, walk=walk)


def outward(x: float, side: int, width: float) -> Span:
    """The span from `x` away from the road."""
    return (x, x + width) if side > 0 else (x - width, x)
