"""IDD's polygon files, and the label images that they stand for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from dinoidd.classes.idd_labels import BACKGROUND, IddLabel, find_label
from dinoidd.errors import InputError

MAX_PIXELS = 1 << 28  # of a label image; more is a broken file, not a camera
MAX_COORDINATE = 1e6  # pixels; Pillow's edges overflow far beyond it
FEWEST_POINTS = 3
_UNKNOWN_ADVICE = "give it one of IDD's labels, or set 'deleted': 1"

Point = tuple[float, float]


class PolygonError(InputError):
    """One polygon file cannot be drawn. The message does not name the file."""


@dataclass(frozen=True, kw_only=True)
class Polygon:
    """An outline to fill, in pixels; it may reach beyond the image."""

    label: IddLabel
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A polygon file: the size of its image in pixels, and what to draw, first to last."""

    width: int
    height: int
    polygons: tuple[Polygon, ...]


def read_annotation(path: Path) -> Annotation:
    """A polygon file without deleted objects and outlines of fewer than three points.

    Raises:
        PolygonError: no JSON, no polygon file, or unknown labels; all of a file's faults are told.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolygonError(f"cannot be read: {error.strerror or error}") from error
    return decode_annotation(data)


def decode_annotation(data: bytes) -> Annotation:
    """The annotation of a file's bytes. Raises PolygonError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PolygonError(f"is not JSON: {error}") from error
    return parse_annotation(content)


def parse_annotation(content: Any) -> Annotation:
    """The annotation of a file's parsed JSON. Raises PolygonError."""
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise PolygonError("is not a polygon file: it is no object with a list 'objects'")
    width: Any = content.get("imgWidth")
    height: Any = content.get("imgHeight")
    problems = list(_size_problems(width, height))
    polygons = []
    for number, entry in enumerate(content["objects"]):
        try:
            if (polygon := _polygon(entry)) is not None:
                polygons.append(polygon)
        except PolygonError as error:
            problems.append(f"object {number} {error}")
    if problems:
        raise PolygonError("; ".join(problems))
    return Annotation(width=width, height=height, polygons=tuple(polygons))


def _size_problems(width: Any, height: Any) -> Iterator[str]:
    sides = (width, height)
    if any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in sides):
        yield f"has imgWidth {width!r} and imgHeight {height!r}: two positive integers are needed"
    elif width * height > MAX_PIXELS:
        yield f"is {width}x{height}: more than {MAX_PIXELS:,} pixels"


def _polygon(entry: Any) -> Polygon | None:
    """The object's outline, or None where nothing is drawn."""
    if not isinstance(entry, dict):
        raise PolygonError(f"is {entry!r}, not an object")
    points = entry.get("polygon")
    if entry.get("deleted") or (isinstance(points, list) and len(points) < FEWEST_POINTS):
        return None
    name = entry.get("label")
    label = find_label(name) if isinstance(name, str) else None
    if label is None:
        raise PolygonError(f"has the unknown label {name!r}: {_UNKNOWN_ADVICE}")
    if not isinstance(points, list) or not all(map(_is_point, points)):
        raise PolygonError(f"('{name}') has a polygon that is no list of [x, y]")
    return Polygon(label=label, points=tuple((x, y) for x, y in points))


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(_is_coordinate, point))


def _is_coordinate(value: Any) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and abs(value) <= MAX_COORDINATE  # which infinity and NaN are not


def draw_labels(annotation: Annotation, encoding: str) -> Image.Image:
    """The label image: mode L, or RGBA for the encoding `color`.

    The official tool's image, pixel for pixel: Pillow's polygon fill, in the file's order.
    """
    mode = "RGBA" if encoding == "color" else "L"
    size = (annotation.width, annotation.height)
    image = Image.new(mode, size, BACKGROUND.value(encoding))
    drawing = ImageDraw.Draw(image)
    for polygon in annotation.polygons:
        drawing.polygon(polygon.points, fill=polygon.label.value(encoding))
    return image
