"""What stands and moves along a street, and where."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dinoidd.data.scenes.bikes import bicycle, bicycle_across, motorcycle
from dinoidd.data.scenes.buildings import building
from dinoidd.data.scenes.camera import Color, Label, Span
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.cast import Cast
from dinoidd.data.scenes.colors import BRICKS, CONCRETE, METAL, pick
from dinoidd.data.scenes.ground import draw_curb
from dinoidd.data.scenes.people import cow, person
from dinoidd.data.scenes.plants import bushes, palm, tree
from dinoidd.data.scenes.roadside import (
    barrier,
    bridge,
    fence,
    guard_rail,
    lamp_post,
    wall,
)
from dinoidd.data.scenes.signs import billboard, gantry, traffic_light, traffic_sign
from dinoidd.data.scenes.street import CURB_HEIGHT_M, CURB_M, Shoulder, Street, outward
from dinoidd.data.scenes.vehicles import autorickshaw, bus, car, cart, tractor, truck

Driven = Callable[[Canvas, np.random.Generator, float, float, bool], None]


class Traffic(NamedTuple):
    """A kind of vehicle: how to draw it, its length and width in metres, its relative frequency."""

    draw: Driven
    length: float
    width: float
    share: float


MOVING = (
    Traffic(car, 4.5, 1.8, 0.36),
    Traffic(motorcycle, 2.0, 0.7, 0.24),
    Traffic(autorickshaw, 2.7, 1.3, 0.12),
    Traffic(truck, 9.0, 2.4, 0.1),
    Traffic(bus, 11.5, 2.5, 0.09),
    Traffic(bicycle, 1.8, 0.5, 0.05),
    Traffic(tractor, 3.3, 1.9, 0.04),
)
PARKED = (
    Traffic(car, 4.5, 1.8, 0.45),
    Traffic(partial(motorcycle, ridden=False), 2.0, 0.7, 0.2),
    Traffic(autorickshaw, 2.7, 1.3, 0.2),
    Traffic(cart, 2.2, 1.5, 0.15),
)


def populate(cast: Cast, street: Street) -> None:
    """Put a whole street's worth of things into the cast."""
    for shoulder in (street.left, street.right):
        _plots(cast, shoulder, street.urban)
        _furnish(cast, shoulder)
        _parked(cast, shoulder)
    _overhead(cast, street)
    _divide(cast, street)
    spacing, sway = cast.uniform(3, 26), 0.2 * street.lane_width
    for lane in street.lanes:
        ahead = 8.0 if abs(lane.x) < 1 else 6.0
        _queue(cast, MOVING, lane.x, ahead, spacing, sway, lane.away)
    _people(cast, street)


def _plots(cast: Cast, shoulder: Shoulder, urban: float) -> None:
    """One side of the street, plot by plot; houses on the sunny side throw a shadow on it."""
    light = cast.canvas.light
    paint, metal = pick(cast.rng, BRICKS), pick(cast.rng, METAL)
    z, sunny = cast.uniform(1.5, 4.0), light.sun_left == (shoulder.side < 0)
    while z < 160:
        end = z + cast.uniform(7, 15)
        plot = (z, end - (cast.uniform(0.0, 2.5) if cast.chance(0.4) else 0.0))
        set_back = _enclose(cast, shoulder, plot, paint, metal)
        behind = shoulder.verge + shoulder.side * (set_back + 0.4)
        if cast.chance(0.12 + 0.75 * urban):
            height = cast.uniform(3.4, 6.5) + cast.uniform(0, 12) * urban
            across = outward(behind, shoulder.side, 12)
            cast.add(across, plot, building, behind, shoulder.side, plot, height)
            if sunny and not set_back and light.contrast > 0.2:
                reach = outward(shoulder.verge, -shoulder.side, 5.0)
                cast.canvas.shadow(reach, plot, 1 - 1.3 * light.contrast)
        else:
            _greenery(cast, behind, shoulder.side, plot)
        z = end


def _enclose(cast: Cast, shoulder: Shoulder, plot: Span, paint: Color, metal: Color) -> float:
    """Perhaps a wall or a fence in front of a plot; how far the rest stands back, metres."""
    x, side, kind = shoulder.verge, shoulder.side, cast.rng.random()
    across = outward(x, side, 0.3)
    if kind < 0.22:
        cast.add(across, plot, wall, x, side, plot, cast.uniform(1.7, 2.6), paint)
    elif kind < 0.40:
        cast.add(across, plot, fence, x, plot, cast.uniform(1.3, 2.2), metal)
    else:
        return 0.0
    return cast.uniform(2, 5)


def _greenery(cast: Cast, x: float, side: int, plot: Span) -> None:
    for _ in range(int(cast.rng.integers(1, 4))):
        z = cast.uniform(plot[0] + 2, plot[1])
        if z > 6:
            plant = palm if cast.chance(0.15) else tree
            cast.add_thin(x + side * cast.uniform(2.0, 9.0), z, plant)
    if cast.chance(0.6) and plot[0] > 4:
        at = x + side * cast.uniform(0.8, 2.0)
        cast.add((at - 0.3, at + 0.3), plot, bushes, at, plot, cast.uniform(0.5, 1.3))


def _furnish(cast: Cast, shoulder: Shoulder) -> None:
    """Posts, signs, trees, boards, rails and obstacles at one edge of the road."""
    curb, side = shoulder.curb, shoulder.side
    if cast.chance(0.8):
        for z in np.arange(cast.uniform(6, 25), 120, cast.uniform(18, 30)).tolist():
            cast.add_thin(curb + side * 0.6, z, lamp_post, side)
    for _ in range(int(cast.rng.integers(0, 4))):
        cast.add_thin(curb + side * cast.uniform(0.6, 1.1), cast.uniform(7, 45), traffic_sign)
    for _ in range(int(cast.rng.poisson(1.1))):
        cast.add_thin(curb + side * cast.uniform(-0.4, 1.2), cast.uniform(6, 35), barrier)
    if cast.chance(0.35):
        for z in cast.rng.uniform(7, 60, size=4).tolist():
            cast.add_thin(shoulder.verge - side * 0.3, z, tree)
    if not shoulder.walk and cast.chance(0.6):
        _rails(cast, curb + side * 0.15)
    if cast.chance(0.3):
        board = shoulder.verge + side * 2.5
        cast.add_thin(board, cast.uniform(16, 60), billboard, cast.uniform(3.5, 7))


def _rails(cast: Cast, x: float) -> None:
    for i in range(12):
        piece = (2.0 + 10.0 * i, 12.0 + 10.0 * i)
        cast.add((x - 0.1, x + 0.1), piece, guard_rail, x, piece)


def _parked(cast: Cast, shoulder: Shoulder) -> None:
    if shoulder.parking > 2.0:
        x = shoulder.edge + shoulder.side * shoulder.parking / 2
        _queue(cast, PARKED, x, 5.5, 9.0, 0.1, shoulder.side < 0)


def _overhead(cast: Cast, street: Street) -> None:
    """What spans the street: signals, direction signs, a bridge."""
    left, right = span = (street.left.curb - 0.5, street.right.curb + 0.5)
    if cast.chance(0.4):
        z = cast.uniform(11, 40)
        cast.add_thin(left, z, traffic_light, -1)
        cast.add_thin(right, z + 0.1, traffic_light, 1)
    if cast.chance(0.1):
        z = cast.uniform(28, 60)
        cast.add(span, (z, z + 0.3), gantry, span, z)
    if cast.chance(0.22):
        z = cast.uniform(24, 80)
        cast.add(span, (z, z + 3), bridge, span, z)


def _divide(cast: Cast, street: Street) -> None:
    """The strip between the directions: bushes, a rail or a low wall, piece by piece."""
    if street.divider is None:
        return
    (left, right), kind = street.divider, cast.rng.random()
    middle, paint = 0.5 * (left + right), pick(cast.rng, CONCRETE)
    if kind < 0.75:
        draw_curb(cast.canvas, cast.rng, left, 1)
        top = (left + CURB_M, right)
        cast.canvas.level(top, CURB_HEIGHT_M, (1.5, 150), (112, 122, 66), Label.VEGETATION)
    for i in range(12):
        piece = (3.0 + 9.0 * i, 12.0 + 9.0 * i)
        if kind < 0.45:
            size = min(0.5, (right - left) / 2.4)
            cast.add((left, right), piece, bushes, middle, (piece[0], piece[1] - 1), size)
        elif kind < 0.75:
            cast.add((left, right), piece, guard_rail, middle, piece)
        else:
            cast.add((left, right), piece, wall, middle, 1, piece, 0.9, paint)


def _queue(
    cast: Cast,
    kinds: tuple[Traffic, ...],
    x: float,
    start: float,
    spacing: float,
    sway: float,
    away: bool,
) -> None:
    """One vehicle behind the other from `start` on, `spacing` metres apart on average."""
    shares = np.cumsum([kind.share for kind in kinds])
    z = start + float(cast.rng.exponential(spacing))
    while z < 130:
        kind = kinds[int(np.searchsorted(shares, cast.rng.random() * shares[-1]))]
        swing = 3 * sway if kind.width < 1 else sway
        at = x + swing * cast.uniform(-1, 1)
        across = (at - kind.width / 2, at + kind.width / 2)
        cast.add(across, (z, z + kind.length), kind.draw, at, z, away)
        z += kind.length + 1.5 + float(cast.rng.exponential(spacing))


def _people(cast: Cast, street: Street) -> None:
    """On the sidewalks, crossing the road, and on parked or crossing bicycles."""
    crowd = cast.uniform(0.5, 7)
    for shoulder in (street.left, street.right):
        for _ in range(int(cast.rng.poisson(crowd))):
            x = shoulder.curb + shoulder.side * cast.uniform(0.3, max(1.0, shoulder.walk))
            cast.add_thin(x, cast.uniform(6, 50), person)
        if cast.chance(0.4):
            x = shoulder.curb + shoulder.side * 0.9
            cast.add_thin(x, cast.uniform(7, 22), bicycle_across, False)
    for _ in range(int(cast.rng.poisson(0.9))):
        z, x = cast.uniform(9, 35), cast.uniform(street.left.edge, street.right.edge)
        if cast.chance(0.25):
            cast.add_thin(x, z, bicycle_across, True)
        elif cast.chance(0.2):
            cast.add((x - 1, x + 1), (z, z + 0.3), cow, x, z)
        else:
            cast.add_thin(x, z, person)
