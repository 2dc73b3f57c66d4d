"""Houses, with their windows, shops and signs."""

import numpy as np

from dinoidd.data.scenes.camera import Color, Face, Label, Span
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import BLACK, PAINTS, PLASTER, pick
from dinoidd.data.scenes.street import outward

PANES: list[Color] = [(70, 85, 100), (55, 62, 70), (95, 115, 130)]


def building(
    c: Canvas, rng: np.random.Generator, x: float, side: int, z: Span, height: float
) -> None:
    """A house whose facade stands at `x`, with windows, shop fronts and signs."""
    paint, pane, label = pick(rng, PLASTER), pick(rng, PANES), Label.BUILDING
    depth, floors = float(rng.uniform(7, 12)), max(1, round(height / 3.2))
    body = c.box(outward(x, side, depth), (0.0, height), z, paint, label)
    if c.scale(z[0]) < 4:
        return
    _windows(c, rng, body.side, max(2, int((z[1] - z[0]) / 2.6)), floors, pane)
    _windows(c, rng, body.front, 3, floors, pane)
    for face in body:
        c.panel(face, (0.0, 1.0), (1 - 0.5 / height, 1.0), paint, label, 0.7)
    if rng.random() < 0.6:
        _shops(c, rng, body.side, (z[1] - z[0]), height)
    if rng.random() < 0.5:
        tank = outward(x + side * 2, side, 1.6)
        c.box(tank, (height, height + 1.5), (z[0] + 1, z[0] + 2.6), BLACK, label)


def _windows(
    c: Canvas, rng: np.random.Generator, face: Face | None, columns: int, floors: int, pane: Color
) -> None:
    style, label = rng.random(), Label.BUILDING
    low, high = (0.28, 0.76) if style < 0.6 else (0.1, 0.86)
    for floor in range(floors):
        v = ((floor + low) / floors, (floor + high) / floors)
        if style > 0.8:  # a band of glass
            c.panel(face, (0.04, 0.96), v, pane, label)
            continue
        for column in range(columns):
            u = ((column + 0.25) / columns, (column + 0.72) / columns)
            lit = c.light.dark and rng.random() < 0.4
            c.panel(face, u, v, (600, 500, 300) if lit else pane, label)


def _shops(
    c: Canvas, rng: np.random.Generator, face: Face | None, length: float, height: float
) -> None:
    """Shutters on the ground floor and the boards above them."""
    count = max(1, int(length / 3.5))
    door, board = 2.5 / height, 3.4 / height
    for i in range(count):
        u = ((i + 0.05) / count, (i + 0.95) / count)
        shutter = pick(rng, [(60, 55, 50), (110, 115, 125), (70, 100, 140), (45, 45, 48)])
        c.panel(face, u, (0.0, door), shutter, Label.BUILDING)
        if rng.random() < 0.6:
            c.panel(face, u, (door, board), pick(rng, PAINTS), Label.BILLBOARD)
            middle = (u[0] + 0.2 / count, u[1] - 0.2 / count)
            stripe = (door + 0.35 * (board - door), door + 0.65 * (board - door))
            c.panel(face, middle, stripe, (245, 240, 225), Label.BILLBOARD)
