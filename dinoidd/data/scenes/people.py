"""People and animals: flat figures that face the camera at `x` and `z`, in metres."""

from collections.abc import Sequence

import numpy as np

from dinoidd.data.scenes.camera import Color, Label, Pixel
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import CLOTHES, SKIN, TROUSERS, pick

COATS: list[Color] = [(205, 190, 165), (120, 80, 55), (60, 52, 48), (225, 220, 212)]


def person(c: Canvas, rng: np.random.Generator, x: float, z: float, base: float = 0.0) -> None:
    """Someone who stands or walks on ground of height `base`."""
    tall, label = float(rng.uniform(1.4, 1.82)), Label.PERSON
    shirt, cloth, skin = pick(rng, CLOTHES), pick(rng, TROUSERS), pick(rng, SKIN)
    stride = float(rng.uniform(0.02, 0.14))
    c.shadow((x - 0.25, x + 0.25), (z - 0.1, z + 0.4), 0.55)

    def part(outline: Sequence[Pixel], color: Color) -> None:
        c.flat(x, z, [(dx * tall, base + dy * tall) for dx, dy in outline], color, label)

    if rng.random() < 0.35:  # a saree or a long kurta
        part([(-0.14, 0.0), (0.14, 0.0), (0.1, 0.55), (-0.1, 0.55)], pick(rng, CLOTHES))
    else:
        part([(-stride - 0.04, 0.0), (-stride + 0.05, 0.0), (0.02, 0.5), (-0.1, 0.5)], cloth)
        part([(stride - 0.05, 0.0), (stride + 0.04, 0.0), (0.1, 0.5), (-0.02, 0.5)], cloth)
    part(
        [(-0.11, 0.46), (0.11, 0.46), (0.135, 0.82), (0.05, 0.86), (-0.05, 0.86), (-0.135, 0.82)],
        shirt,
    )
    swing = float(rng.uniform(-0.03, 0.06))
    for s in (-1, 1):
        part(
            [
                (s * 0.13, 0.82),
                (s * (0.17 + swing), 0.45),
                (s * (0.13 + swing), 0.45),
                (s * 0.1, 0.8),
            ],
            skin,
        )
    if rng.random() < 0.3:
        part([(0.12, 0.3), (0.24, 0.3), (0.22, 0.46), (0.14, 0.46)], pick(rng, CLOTHES))
    c.disc(x, base + tall * 0.92, z, tall * 0.065, skin, label)
    part([(-0.065, 0.93), (0.065, 0.93), (0.05, 0.995), (-0.05, 0.995)], (35, 28, 25))


def cow(c: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A cow seen from its side; animals share the class of persons."""
    coat, label, s = pick(rng, COATS), Label.PERSON, 1 if rng.random() < 0.5 else -1
    c.shadow((x - 0.9, x + 0.9), (z - 0.1, z + 0.6), 0.5)
    for leg in (-0.7, -0.5, 0.45, 0.62):
        c.flat(
            x,
            z,
            [(leg, 0.0), (leg + 0.11, 0.0), (leg + 0.13, 0.75), (leg - 0.02, 0.75)],
            coat,
            label,
            0.8,
        )
    body = [(-0.85, 0.7), (0.75, 0.65), (0.85, 1.1), (0.6, 1.3), (-0.7, 1.28), (-0.88, 1.1)]
    c.flat(x, z, [(s * dx, dy) for dx, dy in body], coat, label)
    head = [(0.7, 1.1), (1.05, 0.95), (1.3, 1.05), (1.28, 1.2), (1.0, 1.45), (0.65, 1.3)]
    c.flat(x, z, [(s * dx, dy) for dx, dy in head], coat, label, 0.92)
    c.flat(x, z, [(s * 1.0, 1.4), (s * 1.12, 1.65), (s * 1.05, 1.42)], (90, 80, 70), label)
    c.flat(
        x,
        z,
        [(s * -0.85, 1.2), (s * -0.95, 0.5), (s * -0.9, 0.5), (s * -0.8, 1.15)],
        coat,
        label,
        0.7,
    )
