"""Trees, palms and bushes: ragged clumps of leaves."""

import math

import numpy as np

from dinoidd.data.scenes.camera import Color, Label, Span
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import LEAVES, pick

_CIRCLE = [(math.cos(2 * math.pi * i / 14), math.sin(2 * math.pi * i / 14)) for i in range(14)]


def tree(c: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A tree: a trunk and a crown, dark below and bright above (the trunk is vegetation too)."""
    leaf, trunk = pick(rng, LEAVES), float(rng.uniform(0.12, 0.3))
    crown, radius = float(rng.uniform(3.6, 6.0)), float(rng.uniform(1.5, 2.9))
    c.shadow((x - 1.2, x + 1.2), (z - 0.8, z + 1.2), 1 - 0.6 * c.light.contrast)
    bark = [(-trunk, 0.0), (trunk, 0.0), (trunk * 0.6, crown), (-trunk * 0.6, crown)]
    c.flat(x, z, bark, (95, 75, 58), Label.VEGETATION)
    count = 9 if radius * c.scale(z) > 12 else 4
    for i in range(count):
        rise = i / count - 0.45
        dx, dy = float(rng.uniform(-0.75, 0.75)) * radius, rise * 1.5 * radius
        light = 0.78 + 0.5 * (i / count)
        color = (leaf[0] * light, leaf[1] * light, leaf[2] * light)
        blob(c, rng, x + dx, crown + dy, z, radius * float(rng.uniform(0.45, 0.8)), color)


def palm(c: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A palm: a long thin trunk under a star of fronds."""
    leaf, tall = pick(rng, LEAVES), float(rng.uniform(5, 8))
    c.flat(
        x, z, [(-0.14, 0), (0.14, 0), (0.1, tall), (-0.1, tall)], (120, 100, 78), Label.VEGETATION
    )
    for angle in rng.uniform(-0.9, math.pi + 0.9, size=11).tolist():
        dx, dy = 2.0 * math.cos(angle), 1.5 * math.sin(angle)
        frond = [
            (0.0, tall),
            (dx * 0.5 - dy * 0.12, tall + dy * 0.6 + 0.25),
            (dx, tall + dy - 0.4),
            (dx * 0.5 + dy * 0.1, tall + dy * 0.5),
        ]
        c.flat(x, z, frond, leaf, Label.VEGETATION, float(rng.uniform(0.8, 1.25)))


def bushes(c: Canvas, rng: np.random.Generator, x: float, z: Span, size: float = 0.7) -> None:
    """A row of bushes along the street."""
    leaf, step = pick(rng, LEAVES), max(0.9, size * 1.1)
    for i in range(int((z[1] - z[0]) / step), -1, -1):
        color = pick(rng, [leaf], 14)
        blob(c, rng, x, size * 0.75, z[0] + i * step, size * float(rng.uniform(0.8, 1.25)), color)


def blob(
    c: Canvas, rng: np.random.Generator, x: float, y: float, z: float, radius: float, color: Color
) -> None:
    """A ragged clump of leaves."""
    reach = (radius * rng.uniform(0.72, 1.16, size=len(_CIRCLE))).tolist()
    outline = [(cos * r, y + sin * r) for (cos, sin), r in zip(_CIRCLE, reach, strict=True)]
    c.flat(x, z, outline, color, Label.VEGETATION)
