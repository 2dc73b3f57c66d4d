"""Traffic signs and lights, billboards, direction signs."""

import numpy as np

from dinoidd.data.scenes.camera import Color, Label, Span
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import BLACK, PAINTS, STEEL, pick


def traffic_sign(c: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A sign on its post: a round one, a triangle or a board."""
    label, y, kind = Label.TRAFFIC_SIGN, float(rng.uniform(2.1, 2.7)), int(rng.integers(4))
    c.front((x - 0.05, x + 0.05), (0.0, y), z, STEEL, Label.POLE)
    if kind == 0:
        c.disc(x, y + 0.35, z, 0.42, (200, 35, 35), label)
        c.disc(x, y + 0.35, z, 0.3, (240, 240, 238), label)
        c.flat(
            x,
            z,
            [(-0.16, y + 0.28), (0.16, y + 0.28), (0.16, y + 0.42), (-0.16, y + 0.42)],
            BLACK,
            label,
        )
    elif kind == 1:
        c.flat(x, z, [(-0.52, y), (0.52, y), (0.0, y + 0.95)], (200, 35, 35), label)
        c.flat(x, z, [(-0.32, y + 0.13), (0.32, y + 0.13), (0.0, y + 0.7)], (242, 242, 240), label)
    elif kind == 2:
        c.disc(x, y + 0.35, z, 0.42, (30, 80, 170), label)
        c.flat(x, z, [(-0.1, y + 0.1), (0.1, y + 0.1), (0.0, y + 0.62)], (245, 245, 245), label)
    else:
        board = pick(rng, [(25, 105, 65), (30, 80, 160)], 8)
        c.front((x - 0.75, x + 0.75), (y - 0.1, y + 0.95), z, (240, 240, 240), label)
        c.front((x - 0.68, x + 0.68), (y - 0.03, y + 0.88), z, board, label)
        for line in (0.2, 0.55):
            c.front((x - 0.5, x + 0.4), (y + line, y + line + 0.12), z, (240, 240, 240), label)


def traffic_light(c: Canvas, rng: np.random.Generator, x: float, z: float, side: int) -> None:
    """A post with a signal at its side and, sometimes, one over the road."""
    lit = int(rng.integers(3))
    c.front((x - 0.09, x + 0.09), (0.0, 5.6 if lit else 3.0), z, (85, 88, 90), Label.POLE)
    _signal(c, x, 2.3, z, lit)
    if lit:
        reach = x - side * 3.2
        c.front((min(x, reach), max(x, reach)), (5.45, 5.6), z, (85, 88, 90), Label.POLE)
        _signal(c, reach, 4.9, z, lit)


def _signal(c: Canvas, x: float, y: float, z: float, lit: int) -> None:
    label = Label.TRAFFIC_LIGHT
    c.front((x - 0.26, x + 0.26), (y, y + 1.25), z, (34, 34, 32), label)
    lamps: list[Color] = [(255, 60, 45), (255, 190, 50), (60, 255, 130)]
    for i, color in enumerate(lamps):
        glow = color if i == lit else (color[0] * 0.3, color[1] * 0.3, color[2] * 0.3)
        c.disc(x, y + 1.02 - 0.4 * i, z, 0.17, glow, label)


def billboard(c: Canvas, rng: np.random.Generator, x: float, z: float, width: float) -> None:
    """An advertisement on two posts."""
    low, tall, label = float(rng.uniform(3.0, 4.8)), float(rng.uniform(1.8, 3.2)), Label.BILLBOARD
    for dx in (-0.35, 0.35):
        c.front(
            (x + dx * width - 0.1, x + dx * width + 0.1), (0.0, low), z, (90, 90, 92), Label.POLE
        )
    left, right = x - width / 2, x + width / 2
    c.front((left, right), (low, low + tall), z, pick(rng, PAINTS, 30), label)
    middle = left + width * float(rng.uniform(0.25, 0.6))
    c.front((left + 0.2, middle), (low + 0.25, low + tall - 0.25), z, pick(rng, PAINTS, 40), label)
    for i in range(3):
        y = low + tall * (0.2 + 0.25 * i)
        c.front((middle + 0.2, right - 0.3), (y, y + tall * 0.1), z, (245, 243, 235), label)


def gantry(c: Canvas, rng: np.random.Generator, x: Span, z: float) -> None:
    """Direction signs on a beam over the road."""
    for post in x:
        c.front((post - 0.15, post + 0.15), (0.0, 7.2), z, STEEL, Label.POLE)
    c.front(x, (6.6, 6.9), z, STEEL, Label.POLE)
    third = (x[1] - x[0]) / 3
    for i in range(2 if rng.random() < 0.5 else 3):
        left = x[0] + i * third + 0.3
        c.front((left, left + third - 0.6), (5.6, 7.6), z, (25, 105, 65), Label.TRAFFIC_SIGN)
        for y in (6.0, 6.6, 7.1):
            c.front(
                (left + 0.4, left + third - 1.3),
                (y, y + 0.25),
                z,
                (240, 240, 240),
                Label.TRAFFIC_SIGN,
            )
