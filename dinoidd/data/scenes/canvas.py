"""A canvas of the street: every polygon sets colour and class of the same pixels.

The picture is one RGBA image whose fourth channel is the class, so image and label cannot disagree.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from dinoidd.data.scenes.camera import NEAR_M, Camera, Color, Face, Light, Pixel, Point, Span


class Faces(NamedTuple):
    """The faces of a box that a camera sees and that details are painted on."""

    front: Face
    side: Face | None


class Canvas:
    """Paints polygons far to near; the painter decides the order."""

    def __init__(self, camera: Camera, light: Light, backdrop: np.ndarray) -> None:
        """Start from `backdrop`: HxWx4 uint8, the fourth channel is the class."""
        self.camera, self.light = camera, light
        self._picture = Image.fromarray(backdrop, "RGBA")
        self._draw = ImageDraw.Draw(self._picture)
        self._shadows = Image.new("L", self._picture.size, 255)
        self._shadow_draw = ImageDraw.Draw(self._shadows)
        lit, unlit = 1 + 0.3 * light.contrast, 1 - light.contrast
        self._left_shade, self._right_shade = (lit, unlit) if light.sun_left else (unlit, lit)

    @property
    def pixels(self) -> np.ndarray:
        """HxWx4 uint8: red, green, blue, class."""
        return np.asarray(self._picture)

    @property
    def shadows(self) -> np.ndarray:
        """HxW uint8: the light that reaches the ground, 255 = all of it."""
        return np.asarray(self._shadows)

    def scale(self, z: float) -> float:
        """Pixels a metre at distance `z`."""
        return self.camera.focal / max(z, NEAR_M)

    def paint(
        self, points: Sequence[Pixel], color: Color, label: int, z: float, shade: float = 1.0
    ) -> None:
        """Fill a polygon of pixel positions, lit and hazed as at distance `z`."""
        self._draw.polygon(points, fill=self._fill(color, label, z, shade))

    def flat(
        self,
        x: float,
        z: float,
        outline: Sequence[Pixel],
        color: Color,
        label: int,
        shade: float = 1.0,
    ) -> None:
        """Fill a polygon that faces the camera; `outline` in metres from (x, ground)."""
        scale = self.scale(z)
        left, ground = self.camera.project(x, 0.0, z)
        points = [(left + dx * scale, ground - dy * scale) for dx, dy in outline]
        self._draw.polygon(points, fill=self._fill(color, label, z, shade))

    def front(
        self, x: Span, y: Span, z: float, color: Color, label: int, shade: float = 1.0
    ) -> None:
        """Fill a rectangle that faces the camera."""
        self.quad(
            ((x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)),
            color,
            label,
            shade,
        )

    def side(
        self, x: float, y: Span, z: Span, color: Color, label: int, shade: float = 1.0
    ) -> None:
        """Fill an upright rectangle that runs along the street."""
        self.quad(
            ((x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])),
            color,
            label,
            shade,
        )

    def level(self, x: Span, y: float, z: Span, color: Color, label: int) -> None:
        """Fill a horizontal rectangle."""
        self.quad(
            ((x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])), color, label
        )

    def quad(self, face: Face, color: Color, label: int, shade: float = 1.0) -> None:
        """Fill any four-cornered face."""
        project = self.camera.project
        z = 0.5 * (face[0][2] + face[1][2])
        points = [project(*corner) for corner in face]
        self._draw.polygon(points, fill=self._fill(color, label, z, shade))

    def panel(
        self, face: Face | None, u: Span, v: Span, color: Color, label: int, shade: float = 1.0
    ) -> None:
        """Fill a part of a face: `u` along it, `v` up it, both 0..1. No face, nothing to do."""
        if face is not None:
            low = _within(face, u[0], v[0]), _within(face, u[1], v[0])
            high = _within(face, u[1], v[1]), _within(face, u[0], v[1])
            self.quad((*low, *high), color, label, shade)

    def box(
        self,
        x: Span,
        y: Span,
        z: Span,
        color: Color,
        label: int,
        *,
        narrow: float = 0.0,
        slope: Span = (0.0, 0.0),
    ) -> Faces:
        """Draw a box; its top is `narrow` less wide on each side, `slope` shorter at its ends."""
        low = [(x[0], y[0], z[0]), (x[1], y[0], z[0]), (x[1], y[0], z[1]), (x[0], y[0], z[1])]
        left, right, near, far = x[0] + narrow, x[1] - narrow, z[0] + slope[0], z[1] - slope[1]
        top = [(left, y[1], near), (right, y[1], near), (right, y[1], far), (left, y[1], far)]
        side, shade = self._seen_side(
            (low[0], low[3], top[3], top[0]), (low[1], low[2], top[2], top[1])
        )
        if side is not None:
            self.quad(side, color, label, shade)
        if y[1] < self.camera.altitude:
            self.quad((top[0], top[1], top[2], top[3]), color, label, 1.12)
        elif y[0] > self.camera.altitude:
            self.quad((low[0], low[1], low[2], low[3]), color, label, 0.5)
        front = (low[0], low[1], top[1], top[0])
        self.quad(front, color, label, 0.92)
        return Faces(front, side)

    def _seen_side(self, left: Face, right: Face) -> tuple[Face | None, float]:
        project = self.camera.project
        if project(*left[1])[0] < project(*left[0])[0]:
            return left, self._left_shade
        if project(*right[1])[0] > project(*right[0])[0]:
            return right, self._right_shade
        return None, 1.0

    def disc(self, x: float, y: float, z: float, radius: float, color: Color, label: int) -> None:
        """Fill a disc that faces the camera."""
        self._draw.ellipse(self._around(x, y, z, radius), fill=self._fill(color, label, z, 1.0))

    def ring(
        self,
        x: float,
        y: float,
        z: float,
        radius: float,
        thickness: float,
        color: Color,
        label: int,
    ) -> None:
        """Draw a ring that faces the camera; what is seen through it keeps its class."""
        width = max(1, round(thickness * self.scale(z)))
        fill = self._fill(color, label, z, 1.0)
        self._draw.ellipse(self._around(x, y, z, radius), outline=fill, width=width)

    def wheel(self, x: float, z: float, radius: float, color: Color, label: int) -> None:
        """Fill a disc that stands on the road along the street."""
        rim = [(radius * (1 + math.sin(a)), radius * math.cos(a)) for a in _OCTAGON]
        points = [self.camera.project(x, dy, z + dz) for dy, dz in rim]
        self._draw.polygon(points, fill=self._fill(color, label, z, 1.0))

    def lamp(self, x: Span, y: Span, z: float, color: Color, label: int) -> None:
        """A rectangle that shines by itself: daylight does not dim it."""
        (left, top), (right, bottom) = (
            self.camera.project(x[0], y[1], z),
            self.camera.project(x[1], y[0], z),
        )
        fill = (int(color[0]), int(color[1]), int(color[2]), int(label))
        self._draw.rectangle((left, top, max(left, right), max(top, bottom)), fill=fill)

    def shadow(self, x: Span, z: Span, light: float) -> None:
        """Let only the share `light` reach a rectangle of the ground."""
        corners = ((x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1]))
        points = [self.camera.project(cx, 0.0, cz) for cx, cz in corners]
        self._shadow_draw.polygon(points, fill=int(255 * light))

    def _around(self, x: float, y: float, z: float, radius: float) -> tuple[float, ...]:
        (u, v), r = self.camera.project(x, y, z), radius * self.scale(z)
        return u - r, v - r, u + r, v + r

    def _fill(self, color: Color, label: int, z: float, shade: float) -> tuple[int, int, int, int]:
        clear = math.exp(-self.light.haze * z)
        gain, fog, tint, haze = clear * shade, 1 - clear, self.light.tint, self.light.sky_low
        return (
            min(255, int(color[0] * tint[0] * gain + haze[0] * fog)),
            min(255, int(color[1] * tint[1] * gain + haze[1] * fog)),
            min(255, int(color[2] * tint[2] * gain + haze[2] * fog)),
            int(label),
        )


_OCTAGON = [math.pi * i / 5 for i in range(10)]


def _within(face: Face, u: float, v: float) -> Point:
    """The point at `u` along and `v` up a face."""
    a, b, c, d = ((1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v)
    p, q, r, s = face
    return (
        a * p[0] + b * q[0] + c * r[0] + d * s[0],
        a * p[1] + b * q[1] + c * r[1] + d * s[1],
        a * p[2] + b * q[2] + c * r[2] + d * s[2],
    )
