"""Two-wheelers and who rides them, drawn at `x` and `z` in metres."""

import numpy as np

from dinoidd.data.scenes.camera import Color, Label
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import (
    BIKE_PAINT,
    BLACK,
    CLOTHES,
    PLATE,
    RUBBER,
    SKIN,
    STEEL,
    TROUSERS,
    pick,
)


def motorcycle(
    c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool, ridden: bool = True
) -> None:
    """A motorcycle or scooter seen from behind or from the front."""
    paint, label, lean = pick(rng, BIKE_PAINT), Label.MOTORCYCLE, float(rng.uniform(-0.04, 0.04))
    c.shadow((x - 0.4, x + 0.4), (z - 0.2, z + 1.9), 0.5)
    for wheel in (z + 1.0, z):
        c.wheel(x, wheel, 0.31, RUBBER, label)
    c.side(x, (0.4, 0.95), (z + 0.1, z + 1.3), paint, label, 0.8)
    c.flat(x, z, [(-0.08, 0.0), (0.08, 0.0), (0.08, 0.62), (-0.08, 0.62)], RUBBER, label)
    c.flat(x, z, [(0.1, 0.25), (0.19, 0.25), (0.19, 0.42), (0.1, 0.42)], STEEL, label)
    body = [
        (-0.13, 0.38),
        (0.13, 0.38),
        (0.19 + lean, 0.85),
        (0.12 + lean, 1.0),
        (-0.12 + lean, 1.0),
        (-0.19 + lean, 0.85),
    ]
    c.flat(x, z, body, paint, label)
    bar = [(-0.38, 1.0), (0.38, 1.0), (0.36, 1.06), (-0.36, 1.06)]
    c.flat(x + lean, z + 0.6 if away else z, bar, BLACK, label)
    for s in (-1, 1):
        mirror = [(s * 0.33, 1.05), (s * 0.46, 1.12), (s * 0.45, 1.22), (s * 0.34, 1.2)]
        c.flat(x + lean, z + 0.6 if away else z, mirror, BLACK, label)
    c.flat(x, z, [(-0.1, 0.48), (0.1, 0.48), (0.1, 0.6), (-0.1, 0.6)], PLATE, label)
    if ridden:
        rider(c, rng, x + lean, z, away, seat=0.85)
        if rng.random() < 0.3:
            rider(c, rng, x + lean + 0.04, z - 0.05, away, seat=0.92)
    lamp: Color = (200, 40, 35) if away else (250, 245, 215)
    c.lamp((x - 0.07, x + 0.07), (0.72, 0.8), z - 0.06, lamp, label)


def bicycle(
    c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool, ridden: bool = True
) -> None:
    """A bicycle on its way along the street."""
    paint, label = pick(rng, BIKE_PAINT), Label.BICYCLE
    c.shadow((x - 0.25, x + 0.25), (z - 0.1, z + 1.7), 0.6)
    for wheel in (z + 0.8, z):
        c.wheel(x, wheel, 0.34, RUBBER, label)
    c.side(x, (0.5, 0.68), (z + 0.3, z + 1.2), paint, label)
    c.flat(x, z, [(-0.045, 0.0), (0.045, 0.0), (0.045, 0.7), (-0.045, 0.7)], RUBBER, label)
    c.flat(x, z, [(-0.08, 0.55), (0.08, 0.55), (0.06, 0.92), (-0.06, 0.92)], paint, label)
    bar = z + 0.6 if away else z
    c.flat(x, bar, [(-0.3, 0.98), (0.3, 0.98), (0.3, 1.04), (-0.3, 1.04)], STEEL, label)
    if ridden:
        rider(c, rng, x, z, away, seat=0.9, helmet=False)
    c.flat(x, z, [(-0.14, 0.28), (0.14, 0.28), (0.14, 0.33), (-0.14, 0.33)], BLACK, label)


def bicycle_across(c: Canvas, rng: np.random.Generator, x: float, z: float, ridden: bool) -> None:
    """A bicycle seen from its side: parked, or crossing the street."""
    paint, label, s = pick(rng, BIKE_PAINT), Label.BICYCLE, 1 if rng.random() < 0.5 else -1
    c.shadow((x - 0.85, x + 0.85), (z - 0.05, z + 0.3), 0.65)
    for hub in (-0.52, 0.52):
        c.ring(x + hub, 0.34, z, 0.34, 0.06, RUBBER, label)
    bars = [
        ((-0.52, 0.34), (-0.1, 0.34)), ((-0.1, 0.34), (0.36, 0.82)), ((-0.2, 0.82), (0.36, 0.82)),
        ((-0.1, 0.34), (-0.22, 0.92)), ((0.52, 0.34), (0.34, 1.0)), ((-0.52, 0.34), (-0.2, 0.8)),
    ]  # fmt: skip
    for (x0, y0), (x1, y1) in bars:
        outline = [
            (s * x0 - 0.03, y0),
            (s * x0 + 0.03, y0),
            (s * x1 + 0.03, y1),
            (s * x1 - 0.03, y1),
        ]
        c.flat(x, z, outline, paint, label)
    c.flat(
        x,
        z,
        [(s * -0.36, 0.9), (s * -0.12, 0.9), (s * -0.12, 0.97), (s * -0.36, 0.97)],
        BLACK,
        label,
    )
    c.flat(
        x, z, [(s * 0.24, 0.98), (s * 0.46, 0.98), (s * 0.46, 1.05), (s * 0.24, 1.05)], BLACK, label
    )
    if ridden:
        _rider_across(c, rng, x, z, s)


def rider(
    c: Canvas,
    rng: np.random.Generator,
    x: float,
    z: float,
    away: bool,
    seat: float,
    helmet: bool = True,
) -> None:
    """The one who rides, seen from behind or from the front; `seat` in metres."""
    shirt, cloth, skin, label = (
        pick(rng, CLOTHES),
        pick(rng, TROUSERS),
        pick(rng, SKIN),
        Label.RIDER,
    )
    for s in (-1, 1):
        leg = [
            (s * 0.08, seat),
            (s * 0.2, seat + 0.08),
            (s * 0.27, seat - 0.35),
            (s * 0.22, seat - 0.6),
            (s * 0.15, seat - 0.58),
        ]
        c.flat(x, z, leg, cloth, label)
    torso = [
        (-0.17, seat),
        (0.17, seat),
        (0.21, seat + 0.48),
        (0.1, seat + 0.56),
        (-0.1, seat + 0.56),
        (-0.21, seat + 0.48),
    ]
    c.flat(x, z, torso, shirt, label)
    for s in (-1, 1):
        arm = [
            (s * 0.2, seat + 0.5),
            (s * 0.34, seat + 0.16),
            (s * 0.27, seat + 0.12),
            (s * 0.16, seat + 0.38),
        ]
        c.flat(x, z, arm, shirt, label, 0.85)
    c.disc(x, seat + 0.68, z, 0.12, skin, label)
    if helmet and rng.random() < 0.7:
        c.disc(x, seat + 0.7, z, 0.15, pick(rng, BIKE_PAINT), label)
        if not away:
            c.flat(
                x,
                z,
                [(-0.1, seat + 0.64), (0.1, seat + 0.64), (0.1, seat + 0.74), (-0.1, seat + 0.74)],
                BLACK,
                label,
            )
    else:
        c.flat(
            x,
            z,
            [(-0.11, seat + 0.7), (0.11, seat + 0.7), (0.09, seat + 0.81), (-0.09, seat + 0.81)],
            BLACK,
            label,
        )


def _rider_across(c: Canvas, rng: np.random.Generator, x: float, z: float, s: int) -> None:
    shirt, cloth, skin, label = (
        pick(rng, CLOTHES),
        pick(rng, TROUSERS),
        pick(rng, SKIN),
        Label.RIDER,
    )
    leg = [(-0.26, 0.96), (-0.08, 0.96), (0.14, 0.72), (0.0, 0.28), (-0.1, 0.28), (0.0, 0.68)]
    c.flat(x, z, [(s * dx, dy) for dx, dy in leg], cloth, label)
    torso = [(-0.3, 0.95), (-0.08, 0.95), (0.16, 1.42), (0.04, 1.52), (-0.12, 1.46)]
    c.flat(x, z, [(s * dx, dy) for dx, dy in torso], shirt, label)
    arm = [(0.02, 1.42), (0.12, 1.38), (0.4, 1.02), (0.32, 1.02)]
    c.flat(x, z, [(s * dx, dy) for dx, dy in arm], skin, label)
    c.disc(x + s * 0.12, 1.62, z, 0.12, skin, label)
    hair = [(-0.02, 1.64), (0.24, 1.66), (0.2, 1.75), (0.04, 1.75)]
    c.flat(x, z, [(s * dx, dy) for dx, dy in hair], BLACK, label)
