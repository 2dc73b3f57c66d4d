"""What lies flat: road, parking strips, curbs, sidewalks, verges; and the skyline behind."""

from itertools import pairwise

import numpy as np

from dinoidd.data.scenes.camera import Color, Label, Span
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.colors import LEAVES, PAVERS, PLASTER, pick
from dinoidd.data.scenes.street import CURB_HEIGHT_M, CURB_M, Shoulder, Street, outward

FAR_M = 170.0
_SLICES = np.geomspace(1.0, FAR_M, 28).tolist()
ASPHALT: list[Color] = [(104, 104, 106), (90, 90, 94), (118, 114, 110), (98, 94, 90)]
DUST: list[Color] = [(168, 142, 112), (150, 128, 104), (178, 156, 128)]
PAINT: Color = (225, 222, 210)


def draw_skyline(c: Canvas, rng: np.random.Generator, urban: float) -> None:
    """Far houses and trees in front of the sky, down to the horizon."""
    width, horizon, z = c.camera.width, c.camera.horizon, 110.0
    unit = c.camera.height / 270
    for _ in range(int(14 * urban)):
        left, across = float(rng.uniform(-0.05, 1)) * width, float(rng.uniform(8, 26)) * unit
        top = horizon - float(rng.uniform(6, 30)) * unit
        corners = [
            (left, top),
            (left + across, top),
            (left + across, horizon + 8 * unit),
            (left, horizon + 8 * unit),
        ]
        c.paint(corners, pick(rng, PLASTER), Label.BUILDING, z)
    for depth, tall in ((z, 13.0), (z * 0.75, 8.0)):
        steps = max(8, width // 5)
        rise = (
            rng.uniform(0.25, 1.0, size=steps + 1)
            * np.repeat(rng.uniform(0.3, 1, steps // 6 + 2), 6)[: steps + 1]
        )
        ridge = [
            (i * width / steps, horizon - r * tall * unit) for i, r in enumerate(rise.tolist())
        ]
        floor = horizon + 8 * unit
        c.paint([*ridge, (width, floor), (0, floor)], pick(rng, LEAVES), Label.VEGETATION, depth)


def draw_ground(c: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Everything that lies flat, from the verges inwards."""
    for shoulder in (street.left, street.right):
        _verge(c, rng, shoulder, street.urban)
    asphalt = pick(rng, ASPHALT, 10)
    _strip(c, (street.left.edge, street.right.edge), asphalt, Label.ROAD)
    _repairs(c, rng, street, asphalt)
    _marks(c, rng, street)
    for shoulder in (street.left, street.right):
        if shoulder.parking:
            surface = pick(rng, DUST if rng.random() < 0.6 else PAVERS)
            _strip(
                c, outward(shoulder.edge, shoulder.side, shoulder.parking), surface, Label.PARKING
            )
        if shoulder.walk:
            start = shoulder.curb + shoulder.side * CURB_M
            walk = outward(start, shoulder.side, shoulder.walk)
            _strip(c, walk, pick(rng, PAVERS), Label.SIDEWALK, CURB_HEIGHT_M)
            draw_curb(c, rng, shoulder.curb, shoulder.side)


def draw_curb(c: Canvas, rng: np.random.Generator, x: float, side: int) -> None:
    """A curb's face and top; often painted in two colours by turns."""
    plain = pick(rng, [(165, 162, 156), (180, 176, 168)])
    pairs: list[Color] = [(225, 190, 60), (225, 222, 215)]
    bright = pairs[int(rng.integers(2))] if rng.random() < 0.65 else plain
    dark: Color = (52, 50, 50) if bright is not plain else plain
    top = outward(x, side, CURB_M)
    z, painted = 70.0, 0
    _curb_piece(c, x, top, (z, FAR_M), plain)
    while z > 1.5:
        near = z - max(1.2, z * 0.05)
        _curb_piece(c, x, top, (max(1.0, near), z), dark if painted % 2 else bright)
        z, painted = near, painted + 1


def _curb_piece(c: Canvas, x: float, top: Span, z: Span, color: Color) -> None:
    c.side(x, (0.0, CURB_HEIGHT_M), z, color, Label.CURB, 0.85)
    c.level(top, CURB_HEIGHT_M, z, color, Label.CURB)


def _verge(c: Canvas, rng: np.random.Generator, shoulder: Shoulder, urban: float) -> None:
    """Grass, or paving up to the houses."""
    across = outward(shoulder.curb, shoulder.side, 400.0)
    if shoulder.walk and rng.random() < 0.25 + 0.5 * urban:
        _strip(c, across, pick(rng, PAVERS), Label.SIDEWALK)
    else:
        _strip(
            c, across, pick(rng, [(118, 130, 66), (96, 122, 58), (138, 132, 78)]), Label.VEGETATION
        )


def _strip(c: Canvas, x: Span, color: Color, label: int, y: float = 0.0) -> None:
    """A band along the street, in slices that follow its bend and fade with distance."""
    for near, far in pairwise(_SLICES):
        c.level(x, y, (near, far), color, label)


def _repairs(c: Canvas, rng: np.random.Generator, street: Street, asphalt: Color) -> None:
    """Patches, manholes and wheel tracks."""
    for _ in range(int(rng.integers(0, 7))):
        x, z = (
            float(rng.uniform(street.left.edge + 0.4, street.right.edge - 2.2)),
            float(rng.uniform(4, 30)),
        )
        across, along = float(rng.uniform(0.5, 1.8)), float(rng.uniform(0.8, 5))
        shade = float(rng.uniform(0.7, 1.12))
        color = (asphalt[0] * shade, asphalt[1] * shade, asphalt[2] * shade)
        c.level((x, x + across), 0.0, (z, z + along), color, Label.ROAD)


def _marks(c: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Lane lines, edge lines and perhaps a crossing; worn on some streets, absent on others."""
    if rng.random() < 0.2:
        return
    worn = float(rng.uniform(0.7, 1.0))
    paint = (PAINT[0] * worn, PAINT[1] * worn, PAINT[2] * worn)
    for lane, after in zip(street.lanes[:-1], street.lanes[1:], strict=True):
        x = 0.5 * (lane.x + after.x)
        if lane.away == after.away:
            _dashes(c, x, paint, float(rng.uniform(0, 6)))
        elif street.divider is None:
            yellow = pick(rng, [(215, 175, 60), PAINT])
            _line(c, x, yellow)
    if rng.random() < 0.6:
        for x in (street.left.edge + 0.2, street.right.edge - 0.2):
            _line(c, x, paint)
    if rng.random() < 0.3:
        _crossing(c, street, float(rng.uniform(6, 26)), paint)


def _line(c: Canvas, x: float, color: Color) -> None:
    for near, far in pairwise(_SLICES[:23]):
        c.level((x - 0.07, x + 0.07), 0.0, (near, far), color, Label.ROAD)


def _dashes(c: Canvas, x: float, color: Color, phase: float) -> None:
    for i in range(12):
        z = 2.0 + phase + 7.5 * i
        c.level((x - 0.07, x + 0.07), 0.0, (z, z + 3.0), color, Label.ROAD)


def _crossing(c: Canvas, street: Street, z: float, color: Color) -> None:
    c.level((street.left.edge + 0.3, 0.0), 0.0, (z - 1.6, z - 1.25), color, Label.ROAD)
    x = street.left.edge + 0.4
    while x < street.right.edge - 0.5:
        c.level((x, x + 0.5), 0.0, (z, z + 3.0), color, Label.ROAD)
        x += 1.0
