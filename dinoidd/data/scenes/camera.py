"""What a scene is seen through: its classes, the camera, and the light.

World axes: x to the right of the camera, y up from the road, z ahead; metres.
"""

from dataclasses import dataclass
from enum import IntEnum

Color = tuple[float, float, float]  # red, green, blue; 0..255
Point = tuple[float, float, float]  # x, y, z in metres
Pixel = tuple[float, float]
Face = tuple[Point, Point, Point, Point]  # bottom left, bottom right, top right, top left
Span = tuple[float, float]

NEAR_M = 0.8  # nothing is drawn nearer to the camera than this


class Label(IntEnum):
    """The classes of `dinoidd.classes.IDD` by name."""

    ROAD = 0
    PARKING = 1
    SIDEWALK = 2
    RAIL_TRACK = 3
    PERSON = 4
    RIDER = 5
    MOTORCYCLE = 6
    BICYCLE = 7
    AUTORICKSHAW = 8
    CAR = 9
    TRUCK = 10
    BUS = 11
    VEHICLE_FALLBACK = 12
    CURB = 13
    WALL = 14
    FENCE = 15
    GUARD_RAIL = 16
    BILLBOARD = 17
    TRAFFIC_SIGN = 18
    TRAFFIC_LIGHT = 19
    POLE = 20
    OBS_STR_BAR_FALLBACK = 21
    BUILDING = 22
    BRIDGE = 23
    VEGETATION = 24
    SKY = 25


GROUND = (Label.ROAD, Label.PARKING, Label.SIDEWALK, Label.CURB)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera that looks along the street; `bend` curves the whole world sideways."""

    width: int
    height: int
    focal: float  # pixels
    center_x: float  # pixels
    horizon: float  # pixels from the top
    altitude: float  # metres above the road
    bend: float  # half the road's curvature, 1/metre

    def project(self, x: float, y: float, z: float) -> Pixel:
        """The pixel position of a point given in metres."""
        z = max(z, NEAR_M)
        right = self.center_x + self.focal * (x / z + self.bend * z)
        return right, self.horizon + self.focal * (self.altitude - y) / z


@dataclass(frozen=True, kw_only=True)
class Light:
    """What time of day and weather do to colours."""

    sky_top: Color
    sky_low: Color  # at the horizon; far things fade into it
    tint: Color  # gain a channel
    haze: float  # 1/metre
    clouds: float  # share of the sky, 0..1
    contrast: float  # how much darker a face away from the sun is, 0..1
    dark: bool = False  # lamps are on
    sun_left: bool = True
