"""Paints that several things share."""

from collections.abc import Sequence

import numpy as np

from dinoidd.data.scenes.camera import Color

RUBBER: Color = (28, 28, 30)
GLASS: Color = (52, 62, 72)
BLACK: Color = (30, 30, 32)
STEEL: Color = (150, 152, 155)
PLATE: Color = (235, 232, 210)
CAR_PAINT: list[Color] = [
    (228, 228, 226), (190, 192, 196), (120, 124, 130), (50, 52, 58), (165, 40, 38),
    (45, 75, 135), (140, 110, 80), (215, 215, 210), (70, 95, 80), (200, 160, 60),
]  # fmt: skip
BUS_PAINT: list[Color] = [
    (175, 45, 40), (60, 110, 165), (70, 135, 85), (215, 175, 80), (205, 205, 200), (190, 100, 45),
]  # fmt: skip
CAB_PAINT: list[Color] = [
    (200, 95, 35), (190, 150, 50), (60, 95, 140), (150, 50, 45), (120, 115, 100),
]  # fmt: skip
LOAD_PAINT: list[Color] = [
    (150, 105, 65), (110, 90, 75), (90, 110, 95), (165, 150, 125), (125, 70, 50),
]  # fmt: skip
SKIN: list[Color] = [(150, 105, 75), (175, 125, 90), (125, 85, 60)]
CLOTHES: list[Color] = [
    (215, 215, 210), (60, 85, 140), (170, 50, 50), (200, 160, 60), (70, 120, 90),
    (120, 70, 120), (45, 45, 55), (205, 110, 60), (220, 130, 150), (90, 140, 180),
]  # fmt: skip
TROUSERS: list[Color] = [(45, 50, 65), (75, 65, 55), (35, 35, 38), (110, 100, 85), (60, 75, 100)]
BIKE_PAINT: list[Color] = [(40, 40, 45), (150, 35, 35), (50, 70, 120), (90, 90, 95), (180, 110, 40)]
PLASTER: list[Color] = [
    (205, 185, 155), (190, 150, 120), (215, 205, 190), (165, 175, 180), (200, 165, 150),
    (175, 120, 95), (150, 165, 150), (225, 200, 140), (145, 140, 138), (185, 190, 205),
]  # fmt: skip
LEAVES: list[Color] = [(62, 98, 42), (78, 112, 48), (52, 84, 44), (96, 120, 58), (70, 92, 38)]
PAINTS: list[Color] = [
    (205, 45, 45), (35, 85, 165), (240, 200, 50), (240, 240, 235), (40, 140, 90), (225, 110, 40),
]  # fmt: skip
METAL: list[Color] = [(120, 122, 125), (95, 98, 100), (150, 152, 150), (110, 100, 85)]
BRICKS: list[Color] = [
    (165, 100, 80), (190, 180, 165), (150, 150, 145), (205, 190, 150), (175, 135, 110),
]  # fmt: skip
CONCRETE: list[Color] = [(150, 148, 142), (165, 160, 150), (132, 132, 130)]
PAVERS: list[Color] = [(170, 150, 142), (176, 172, 165), (158, 140, 128), (150, 152, 156)]


def pick(rng: np.random.Generator, colors: Sequence[Color], spread: float = 18.0) -> Color:
    """One of the colours, a little changed."""
    base = colors[int(rng.integers(len(colors)))]
    change = float(rng.uniform(-spread, spread))
    r, g, b = (min(255.0, max(0.0, v + change)) for v in base)
    return r, g, b
