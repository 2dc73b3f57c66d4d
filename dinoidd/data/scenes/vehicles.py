"""Vehicles with four wheels and with three, at `x` (their middle) and `z` (their near end), metres.

`away` is the direction of travel: one sees the rear of those that drive away, the front of others.
"""

import numpy as np

from dinoidd.data.scenes.camera import Color, Label, Span
from dinoidd.data.scenes.canvas import Canvas, Faces
from dinoidd.data.scenes.colors import (
    BLACK,
    BUS_PAINT,
    CAB_PAINT,
    CAR_PAINT,
    GLASS,
    LOAD_PAINT,
    PLATE,
    RUBBER,
    STEEL,
    pick,
)


def car(c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """A hatchback, a saloon or a tall van."""
    paint, width = pick(rng, CAR_PAINT), float(rng.uniform(1.55, 1.85))
    length, height = float(rng.uniform(3.5, 4.5)), float(rng.uniform(1.42, 1.85))
    wide, belt = (x - width / 2, x + width / 2), height * 0.56
    _ground_contact(c, wide, z, length, 0.31, Label.CAR)
    body = c.box(wide, (0.24, belt), (z, z + length), paint, Label.CAR, narrow=0.04)
    near = float(rng.uniform(0.0, 0.14)) if away else float(rng.uniform(0.22, 0.32))
    deep = (z + near * length, z + (0.8 if away else 0.97) * length)
    cabin = c.box(wide, (belt, height), deep, paint, Label.CAR, narrow=0.17, slope=(0.38, 0.45))
    c.panel(cabin.front, (0.06, 0.94), (0.12, 0.88), GLASS, Label.CAR)
    c.panel(cabin.side, (0.08, 0.48), (0.14, 0.88), GLASS, Label.CAR)
    c.panel(cabin.side, (0.53, 0.92), (0.14, 0.88), GLASS, Label.CAR)
    c.panel(body.front, (0.0, 1.0), (0.0, 0.28), (60, 60, 62), Label.CAR)
    c.panel(body.front, (0.36, 0.64), (0.3, 0.48), PLATE, Label.CAR)
    if not away:
        c.panel(body.front, (0.28, 0.72), (0.52, 0.72), BLACK, Label.CAR)
    _lamps(c, wide, (belt * 0.62, belt * 0.9), z, away, Label.CAR)
    _wheels(c, wide, z, length, 0.31, Label.CAR)


def autorickshaw(c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """The three-wheeler: green (or black) below, yellow hood above."""
    width, length, height = 1.32, 2.65, float(rng.uniform(1.66, 1.8))
    label, wide = Label.AUTORICKSHAW, (x - 0.66, x + 0.66)
    lower = pick(rng, [(35, 115, 60), (30, 100, 55), (40, 125, 80), (40, 42, 40)], 10)
    hood = pick(rng, [(232, 190, 40), (225, 175, 30), (240, 205, 70)], 10)
    _ground_contact(c, wide, z, length, 0.22, label)
    if not away:
        c.front((x - 0.09, x + 0.09), (0.0, 0.5), z, RUBBER, label)
    slope = (0.12, 0.5) if away else (0.5, 0.12)
    body = c.box(wide, (0.22, 0.92), (z, z + length), lower, label, narrow=0.02)
    cabin = c.box(wide, (0.92, height), (z, z + length), hood, label, narrow=0.1, slope=slope)
    c.panel(cabin.side, (0.2, 0.78), (0.0, 0.62), (45, 40, 35), label)
    if away:
        c.panel(cabin.front, (0.28, 0.72), (0.35, 0.72), GLASS, label)
        c.panel(body.front, (0.0, 1.0), (0.72, 0.84), hood, label)
    else:
        c.panel(cabin.front, (0.1, 0.9), (0.05, 0.7), GLASS, label)
        c.panel(body.front, (0.4, 0.6), (0.5, 0.95), hood, label)
    c.panel(body.front, (0.36, 0.64), (0.1, 0.28), PLATE, label)
    _lamps(c, (x - width / 2, x + width / 2), (0.62, 0.76), z, away, label)
    _wheels(c, wide, z, length, 0.22, label)


def bus(c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """A city bus: a long box with a band of windows."""
    paint, label = pick(rng, BUS_PAINT), Label.BUS
    trim = pick(rng, [(225, 220, 205), (240, 200, 80), (60, 60, 70)])
    length, height = float(rng.uniform(8.5, 11.5)), float(rng.uniform(2.9, 3.3))
    wide = (x - 1.25, x + 1.25)
    _ground_contact(c, wide, z, length, 0.48, label)
    body = c.box(wide, (0.38, height), (z, z + length), paint, label)
    c.panel(body.side, (0.0, 1.0), (0.3, 0.38), trim, label)
    for i in range(8):
        c.panel(body.side, (0.03 + i * 0.12, 0.125 + i * 0.12), (0.46, 0.82), GLASS, label)
    glass = (0.42, 0.84) if away else (0.34, 0.82)
    c.panel(body.front, (0.08, 0.92), glass, GLASS, label)
    c.panel(body.front, (0.2, 0.8), (0.88, 0.97), (235, 170, 60) if c.light.dark else trim, label)
    c.panel(body.front, (0.0, 1.0), (0.0, 0.08), BLACK, label)
    c.panel(body.front, (0.0, 1.0), (0.22, 0.28), trim, label)
    _lamps(c, wide, (0.62, 0.9), z, away, label)
    _wheels(c, wide, z, length, 0.48, label)


def truck(c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """A lorry: a painted cab and an open or covered load."""
    label, wide, length = Label.TRUCK, (x - 1.2, x + 1.2), float(rng.uniform(6.5, 9.0))
    cab_paint, load_paint = pick(rng, CAB_PAINT), pick(rng, LOAD_PAINT)
    height, cab = float(rng.uniform(2.6, 3.7)), 1.9
    _ground_contact(c, wide, z, length, 0.5, label)
    if away:
        c.box((x - 1.1, x + 1.1), (0.5, 2.5), (z + length - cab, z + length), cab_paint, label)
    start = z if away else z + cab + 0.15
    c.box((x - 0.95, x + 0.95), (0.6, 0.95), (start, start + length - cab), BLACK, label)
    load = c.box(wide, (0.95, height), (start, start + length - cab - 0.15), load_paint, label)
    for i in range(6):
        c.panel(load.side, (i / 6, i / 6 + 0.03), (0.0, 1.0), (70, 55, 45), label)
    if away:
        _tailgate(c, rng, load, wide, z, cab_paint)
    else:
        _truck_face(c, x, z, cab, cab_paint)
    _lamps(c, wide, (0.6, 0.85), z, away, label)
    _wheels(c, wide, z, length, 0.5, label)


def _tailgate(
    c: Canvas, rng: np.random.Generator, load: Faces, wide: Span, z: float, trim: Color
) -> None:
    c.front(wide, (0.55, 0.95), z, (70, 60, 55), Label.TRUCK)
    c.panel(load.front, (0.05, 0.95), (0.04, 0.3), trim, Label.TRUCK)
    bright = pick(rng, [(235, 225, 190), (230, 190, 60)])
    c.panel(load.front, (0.2, 0.8), (0.1, 0.2), bright, Label.TRUCK)
    c.panel(load.front, (0.48, 0.52), (0.3, 1.0), (60, 50, 45), Label.TRUCK)


def _truck_face(c: Canvas, x: float, z: float, cab: float, paint: Color) -> None:
    label = Label.TRUCK
    faces = c.box((x - 1.15, x + 1.15), (0.5, 2.6), (z, z + cab), paint, label, slope=(0.15, 0.0))
    c.panel(faces.front, (0.06, 0.94), (0.52, 0.85), GLASS, label)
    c.panel(faces.front, (0.2, 0.8), (0.2, 0.42), BLACK, label)
    c.panel(faces.front, (0.0, 1.0), (0.0, 0.1), STEEL, label)
    c.panel(faces.front, (0.1, 0.9), (0.88, 0.98), (235, 200, 70), label)
    c.panel(faces.side, (0.15, 0.7), (0.52, 0.85), GLASS, label)


def tractor(c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """A tractor: big rear wheels, a bonnet, no cab (class `vehicle fallback`)."""
    label, length = Label.VEHICLE_FALLBACK, 3.2
    paint = pick(rng, [(190, 45, 35), (50, 90, 160), (60, 130, 60)])
    c.shadow((x - 1.1, x + 1.1), (z - 0.2, z + length + 0.2), 0.5)
    rear = z + 0.1 if away else z + 1.7
    c.box((x - 0.4, x + 0.4), (0.6, 1.3), (z + 0.3, z + length), paint, label)
    c.box((x - 0.12, x + 0.12), (1.3, 2.0), (z + 1.4, z + 1.5), BLACK, label)
    for wheel in (x - 0.95, x + 0.65):
        c.box(
            (wheel, wheel + 0.3), (0.0, 1.35), (rear, rear + 1.2), RUBBER, label, slope=(0.35, 0.35)
        )
        c.front((wheel + 0.05, wheel + 0.25), (1.35, 1.5), rear + 0.3, paint, label)
    c.front((x - 0.65, x + 0.65), (0.5, 0.8), rear, (60, 60, 60), label)
    c.front((x - 0.3, x + 0.3), (1.2, 1.7), rear + 0.3, (50, 50, 55), label)
    if not away:
        c.box((x - 0.4, x + 0.4), (0.55, 1.25), (z, z + 1.6), paint, label)
        for wheel in (x - 0.7, x + 0.5):
            c.front((wheel, wheel + 0.2), (0.0, 0.7), z + 0.2, RUBBER, label)
    _lamps(c, (x - 0.5, x + 0.5), (0.9, 1.05), z, away, label)


def cart(c: Canvas, rng: np.random.Generator, x: float, z: float, away: bool) -> None:
    """A hawker's handcart with goods (class `vehicle fallback`)."""
    label, wide = Label.VEHICLE_FALLBACK, (x - 0.75, x + 0.75)
    c.shadow((x - 0.8, x + 0.8), (z, z + 1.9), 0.55)
    for wheel in wide:
        c.wheel(wheel, z + 1.0, 0.35, (70, 55, 45), label)
        c.front((wheel - 0.05, wheel + 0.05), (0.0, 0.75), z + 0.9, (60, 48, 40), label)
    wood = pick(rng, [(150, 110, 70), (70, 110, 150), (120, 85, 60)])
    c.box(wide, (0.7, 0.88), (z, z + 1.8), wood, label)
    goods = [(225, 130, 40), (200, 55, 45), (110, 160, 60), (235, 210, 80)]
    for i in range(5):
        left, deep = x - 0.68 + 0.27 * i, z + 0.2 * (i % 2)
        top = 1.0 + float(rng.uniform(0.05, 0.35))
        heap = pick(rng, goods)
        c.box((left, left + 0.28), (0.88, top), (deep, deep + 1.2), heap, label, narrow=0.06)
    if rng.random() < 0.6 or away:
        canopy = pick(rng, [(200, 60, 50), (60, 110, 170), (230, 200, 90), (80, 140, 90)])
        for post in (x - 0.7, x + 0.66):
            c.front((post, post + 0.04), (0.88, 1.95), z + 0.1, (90, 75, 60), label)
        c.box(
            (x - 0.9, x + 0.9),
            (1.9, 2.15),
            (z, z + 1.8),
            canopy,
            label,
            narrow=0.3,
            slope=(0.4, 0.4),
        )


def _ground_contact(
    c: Canvas, wide: Span, z: float, length: float, radius: float, label: int
) -> None:
    """The shadow under a vehicle and its tyres seen end on."""
    reach = 0.9 if c.light.sun_left else -0.9
    grow = reach * c.light.contrast
    spread = (wide[0] + min(0.0, grow) - 0.1, wide[1] + max(0.0, grow) + 0.1)
    c.shadow(spread, (z - 0.25, z + length + 0.2), 0.42)
    tyre = max(0.16, radius * 0.45)
    for left in (wide[0] + 0.06, wide[1] - 0.06 - tyre):
        c.front((left, left + tyre), (0.0, 2 * radius), z + 0.35, RUBBER, label)


def _wheels(c: Canvas, wide: Span, z: float, length: float, radius: float, label: int) -> None:
    """The two wheels of the side that is seen."""
    left = c.camera.project(wide[0], 0, z + length)[0] < c.camera.project(wide[0], 0, z)[0]
    right = c.camera.project(wide[1], 0, z + length)[0] > c.camera.project(wide[1], 0, z)[0]
    if left or right:
        edge = wide[0] if left else wide[1]
        for at in (0.19, 0.8):
            c.wheel(edge, z + at * length, radius, RUBBER, label)
            if c.scale(z) * radius > 4:
                c.wheel(edge, z + at * length, radius * 0.9, (45, 45, 48), label)


def _lamps(c: Canvas, wide: Span, y: Span, z: float, away: bool, label: int) -> None:
    """Tail lamps of those that drive away, headlamps of the others."""
    size = 0.16 * (wide[1] - wide[0])
    for left in (wide[0] + 0.04, wide[1] - 0.04 - size):
        span = (left, left + size)
        if c.light.dark:
            c.lamp(span, y, z, (225, 45, 35) if away else (255, 245, 205), label)
        else:
            c.front(span, y, z, (170, 30, 28) if away else (235, 235, 225), label)
