"""Generated street scenes: an image and the IDD level 3 class of each of its pixels."""

from dataclasses import dataclass

import numpy as np

from dinoidd.data.scenes.camera import Camera
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.cast import Cast
from dinoidd.data.scenes.ground import draw_ground, draw_skyline
from dinoidd.data.scenes.light import choose_light, develop, paint_sky
from dinoidd.data.scenes.populate import populate
from dinoidd.data.scenes.street import plan_street
from dinoidd.errors import ConfigError

MIN_SIDE = 64  # pixels
MAX_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A street: `image` HxWx3 uint8 (RGB), `label` HxW uint8 (ids of `dinoidd.classes.IDD`)."""

    image: np.ndarray
    label: np.ndarray


def generate_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Draw one street; the same generator state gives the same scene.

    Every class but `rail track` can occur, and no pixel is void.

    Raises:
        ConfigError: a side below 64 or above 8192 pixels.
    """
    problems = size_problem(width, height)
    if problems:
        raise ConfigError(problems[0])
    camera, light, street = _camera(rng, width, height), choose_light(rng), plan_street(rng)
    canvas = Canvas(camera, light, paint_sky(rng, camera, light))
    draw_skyline(canvas, rng, street.urban)
    draw_ground(canvas, rng, street)
    cast = Cast(canvas, rng)
    populate(cast, street)
    cast.draw()
    painted = canvas.pixels
    image = develop(rng, painted, canvas.shadows, camera)
    return Scene(image=image, label=painted[..., 3].copy())


def size_problem(width: int, height: int) -> list[str]:
    """What is wrong with a size, in a sentence; empty if nothing is."""
    if min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE:
        return []
    return [f"--image-size {width}x{height}: a scene has {MIN_SIDE} to {MAX_SIDE} pixels a side"]


def _camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    # The smaller field of view decides, so that square pictures show a street too.
    unit = min(width, height * 16 / 9)
    return Camera(
        width=width,
        height=height,
        focal=unit * float(rng.uniform(0.75, 1.05)),
        center_x=width * float(rng.uniform(0.4, 0.6)),
        horizon=height * float(rng.uniform(0.4, 0.53)),
        altitude=float(rng.uniform(1.35, 1.9)),
        bend=float(rng.uniform(-0.0011, 0.0011)) if rng.random() < 0.6 else 0.0,
    )
