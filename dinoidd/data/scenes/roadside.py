"""Walls, fences, rails, posts, bridges and obstacles."""

import numpy as np

from dinoidd.data.scenes.camera import Color, Label, Span
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import CONCRETE, METAL, PAINTS, pick
from dinoidd.data.scenes.street import outward


def wall(
    c: Canvas, rng: np.random.Generator, x: float, side: int, z: Span, height: float, paint: Color
) -> None:
    """A boundary wall with a coping, sometimes painted with a band."""
    faces = c.box(outward(x, side, 0.3), (0.0, height), z, paint, Label.WALL)
    if c.scale(z[0]) < 5:
        return
    for v in (0.2, 0.4, 0.6, 0.8):
        c.panel(faces.side, (0.0, 1.0), (v, v + 0.02), paint, Label.WALL, 0.75)
    c.panel(faces.side, (0.0, 1.0), (0.93, 1.0), paint, Label.WALL, 1.1)
    if rng.random() < 0.25:
        c.panel(faces.side, (0.15, 0.6), (0.3, 0.75), pick(rng, PAINTS), Label.WALL, 0.8)
    c.panel(faces.side, (0.97, 1.0), (0.0, 1.0), paint, Label.WALL, 0.75)


def fence(
    c: Canvas, rng: np.random.Generator, x: float, z: Span, height: float, paint: Color
) -> None:
    """A fence: close bars before a dim mesh, which is part of it."""
    mesh = (0.35 * paint[0] + 45, 0.35 * paint[1] + 55, 0.35 * paint[2] + 42)
    c.side(x, (0.1, height), z, mesh, Label.FENCE)
    step = 0.4 if c.scale(z[0]) > 18 else 1.2
    for i in range(int((z[1] - z[0]) / step), -1, -1):
        at = z[0] + i * step
        c.side(x, (0.0, height + 0.06), (at, at + step * 0.4), paint, Label.FENCE)
    for y in (0.15, height - 0.25):
        c.side(x, (y, y + 0.12), z, paint, Label.FENCE, 1.1)


def guard_rail(c: Canvas, rng: np.random.Generator, x: float, z: Span) -> None:
    """A steel beam on posts."""
    steel = pick(rng, [(190, 192, 195), (170, 172, 172)], 8)
    for i in range(int((z[1] - z[0]) / 2.5), -1, -1):
        at = z[0] + i * 2.5
        c.front((x - 0.07, x + 0.07), (0.0, 0.75), at, steel, Label.GUARD_RAIL, 0.7)
    c.side(x, (0.38, 0.8), z, steel, Label.GUARD_RAIL)
    c.side(x, (0.55, 0.62), z, steel, Label.GUARD_RAIL, 0.6)


def lamp_post(c: Canvas, rng: np.random.Generator, x: float, z: float, side: int) -> None:
    """A street lamp or an electricity pole."""
    paint, tall, half = (
        pick(rng, METAL),
        float(rng.uniform(6.0, 8.5)),
        float(rng.uniform(0.07, 0.12)),
    )
    c.front((x - half, x + half), (0.0, tall), z, paint, Label.POLE)
    if rng.random() < 0.55:
        arm = [
            (0.0, tall - 0.2),
            (0.0, tall - 0.05),
            (-side * 1.9, tall + 0.35),
            (-side * 1.9, tall + 0.2),
        ]
        c.flat(x, z, arm, paint, Label.POLE)
        head = (x - side * 2.2, x - side * 1.6) if side > 0 else (x + 1.6, x + 2.2)
        c.front(
            head,
            (tall + 0.15, tall + 0.38),
            z,
            (700, 640, 480) if c.light.dark else paint,
            Label.POLE,
        )
    else:
        for y in (tall - 0.5, tall - 1.2):
            c.front((x - 0.9, x + 0.9), (y, y + 0.12), z, paint, Label.POLE, 0.8)


def bridge(c: Canvas, rng: np.random.Generator, x: Span, z: float) -> None:
    """A flyover or a footbridge across the street, on piers beside it."""
    paint, label = pick(rng, CONCRETE), Label.BRIDGE
    low, deep = float(rng.uniform(5.4, 6.2)), float(rng.uniform(3, 9))
    for pier in (x[0] - 1.0, x[1]):
        c.box((pier, pier + 1.0), (0.0, low), (z + 0.5, z + 2.0), paint, label)
    deck = c.box((x[0] - 60, x[1] + 60), (low, low + 1.3), (z, z + deep), paint, label)
    c.panel(deck.front, (0.0, 1.0), (0.0, 0.16), paint, label, 0.65)
    c.front((x[0] - 60, x[1] + 60), (low + 1.3, low + 2.2), z, paint, label, 1.08)
    c.front((x[0] - 60, x[1] + 60), (low + 1.75, low + 1.85), z, paint, label, 0.6)
    c.shadow((x[0] - 30, x[1] + 30), (z, z + deep), 0.45)


def barrier(c: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Street furniture and obstacles: a barrel, a cone, a barricade, a bin, crates."""
    label, kind = Label.OBS_STR_BAR_FALLBACK, int(rng.integers(5))
    c.shadow((x - 0.4, x + 0.4), (z - 0.1, z + 0.6), 0.55)
    if kind == 0:
        _stripes(c, (x - 0.32, x + 0.32), (0.0, 1.05), z, (225, 95, 35), (235, 235, 230))
    elif kind == 1:
        c.flat(x, z, [(-0.28, 0.0), (0.28, 0.0), (0.05, 0.85), (-0.05, 0.85)], (230, 90, 35), label)
        c.flat(
            x, z, [(-0.19, 0.35), (0.19, 0.35), (0.13, 0.55), (-0.13, 0.55)], (240, 240, 235), label
        )
    elif kind == 2:
        for leg in (x - 0.8, x + 0.7):
            c.front((leg, leg + 0.1), (0.0, 1.2), z, (70, 70, 72), label)
        c.front((x - 0.95, x + 0.95), (0.45, 1.2), z, (235, 200, 60), label)
        c.front((x - 0.95, x + 0.95), (0.7, 0.95), z, (190, 45, 40), label)
    elif kind == 3:
        paint = pick(rng, [(60, 120, 80), (50, 90, 140)])
        c.box((x - 0.35, x + 0.35), (0.1, 1.05), (z, z + 0.7), paint, label, narrow=-0.05)
    else:
        for i in range(3):
            left = x - 0.5 + 0.4 * float(rng.random())
            crate = pick(rng, [(150, 110, 70), (60, 100, 160), (170, 60, 50)])
            c.box((left, left + 0.6), (i * 0.4, i * 0.4 + 0.38), (z, z + 0.5), crate, label)


def _stripes(c: Canvas, x: Span, y: Span, z: float, one: Color, two: Color) -> None:
    step = (y[1] - y[0]) / 5
    for i in range(5):
        band = (y[0] + i * step, y[0] + (i + 1) * step)
        c.front(x, band, z, two if i % 2 else one, Label.OBS_STR_BAR_FALLBACK)
