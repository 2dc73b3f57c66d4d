"""Weather and time of day: the sky before anything is painted, texture and light after it."""

from dataclasses import replace

import numpy as np
from PIL import Image

from dinoidd.data.scenes.camera import GROUND, Camera, Label, Light

CLEAR = Light(
    sky_top=(88, 142, 212), sky_low=(196, 216, 234), tint=(1.04, 1.0, 0.95),
    haze=0.003, clouds=0.35, contrast=0.32,
)  # fmt: skip
OVERCAST = Light(
    sky_top=(168, 174, 182), sky_low=(206, 208, 210), tint=(0.88, 0.9, 0.92),
    haze=0.005, clouds=0.8, contrast=0.08,
)  # fmt: skip
SMOG = Light(
    sky_top=(184, 184, 176), sky_low=(214, 208, 192), tint=(0.95, 0.92, 0.85),
    haze=0.013, clouds=0.1, contrast=0.14,
)  # fmt: skip
GOLDEN = Light(
    sky_top=(112, 138, 186), sky_low=(240, 200, 154), tint=(1.06, 0.92, 0.74),
    haze=0.005, clouds=0.4, contrast=0.42,
)  # fmt: skip
RAIN = Light(
    sky_top=(136, 142, 150), sky_low=(172, 176, 180), tint=(0.68, 0.72, 0.77),
    haze=0.009, clouds=0.9, contrast=0.05,
)  # fmt: skip
DUSK = Light(
    sky_top=(52, 64, 106), sky_low=(186, 138, 128), tint=(0.5, 0.5, 0.6),
    haze=0.005, clouds=0.5, contrast=0.1, dark=True,
)  # fmt: skip
WEATHERS = (CLEAR, CLEAR, CLEAR, OVERCAST, OVERCAST, SMOG, GOLDEN, RAIN, DUSK)

# How rough a class looks: fine grain and broad patches, as shares of its brightness.
_GRAIN = np.full(256, 0.02, np.float32)
_PATCH = np.full(256, 0.03, np.float32)
_GRAIN[Label.VEGETATION], _PATCH[Label.VEGETATION] = 0.16, 0.16
_GRAIN[Label.SKY], _PATCH[Label.SKY] = 0.0, 0.0
for _rough in (Label.BUILDING, Label.WALL, Label.BRIDGE):
    _GRAIN[_rough], _PATCH[_rough] = 0.035, 0.06
_PAVING = np.zeros(256, np.float32)  # roughness that lies on the ground, in perspective
_PAVING[Label.ROAD], _PAVING[Label.SIDEWALK], _PAVING[Label.PARKING] = 0.07, 0.1, 0.16
_IS_GROUND = np.zeros(256, np.float32)
_IS_GROUND[list(GROUND)] = 1.0
_TILE = 256  # cells of the tiling ground texture
_CELLS_PER_METRE = 12.0


def choose_light(rng: np.random.Generator) -> Light:
    """One of the weathers, a little changed."""
    light = WEATHERS[int(rng.integers(len(WEATHERS)))]
    gain, warmth = float(rng.uniform(0.88, 1.1)), float(rng.uniform(-0.04, 0.04))
    r, g, b = light.tint
    return replace(
        light,
        tint=(r * gain * (1 + warmth), g * gain, b * gain * (1 - warmth)),
        haze=light.haze * float(rng.uniform(0.6, 1.5)),
        clouds=light.clouds * float(rng.uniform(0.5, 1.2)),
        sun_left=bool(rng.random() < 0.5),
    )


def paint_sky(rng: np.random.Generator, camera: Camera, light: Light) -> np.ndarray:
    """The backdrop, HxWx4 uint8: a sky with clouds over the whole picture, class `sky`."""
    height, width = camera.height, camera.width
    rise = np.clip(np.arange(height, dtype=np.float32) / max(1.0, camera.horizon), 0, 1)[:, None]
    cover = smooth_noise(rng, width, height, (11, 6)) + 0.5 * smooth_noise(
        rng, width, height, (24, 15)
    )
    cloud = np.clip(cover + 1.2 * light.clouds - 0.7, 0, 1.2) * 0.6 * (1 - 0.6 * rise)
    backdrop = np.empty((height, width, 4), np.uint8)
    for channel, (top, low) in enumerate(zip(light.sky_top, light.sky_low, strict=True)):
        sky = top + (low - top) * rise**1.3
        backdrop[..., channel] = sky + (min(low + 22, 250) - sky) * cloud
    backdrop[..., 3] = Label.SKY
    return backdrop


def smooth_noise(
    rng: np.random.Generator, width: int, height: int, cells: tuple[int, int]
) -> np.ndarray:
    """HxW float32 of about unit spread that varies over `cells` (down, across)."""
    coarse = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def develop(
    rng: np.random.Generator, painted: np.ndarray, shadows: np.ndarray, camera: Camera
) -> np.ndarray:
    """Turn flat paint into a photograph, HxWx3 uint8: each pixel is changed for itself alone.

    Args:
        painted: HxWx4 uint8, the fourth channel is the class.
        shadows: HxW uint8, the light that reaches the ground; 255 = all.
    """
    height, width, _ = painted.shape
    label = painted[..., 3]
    gain = _GRAIN[label] * rng.standard_normal((height, width), dtype=np.float32)
    gain += _PATCH[label] * smooth_noise(rng, width, height, (height // 12 + 2, width // 12 + 2))
    gain += _PAVING[label] * _paving(rng, camera)
    gain += 1
    gain *= 1 - _IS_GROUND[label] * (1 - shadows.astype(np.float32) / 255)
    gain *= _vignette(width, height, float(rng.uniform(0.0, 0.18)))
    sensor = rng.standard_normal((height, width), dtype=np.float32) * float(rng.uniform(1.0, 4.0))
    image = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        image[..., channel] = np.clip(painted[..., channel] * gain + sensor, 0, 255)
    return image


def _paving(rng: np.random.Generator, camera: Camera) -> np.ndarray:
    """HxW float32: a texture that lies on the ground plane, fading with distance."""
    rows = np.arange(camera.height, dtype=np.float32)[:, None] - camera.horizon
    z = camera.focal * camera.altitude / np.maximum(rows, 0.5)
    columns = np.arange(camera.width, dtype=np.float32)[None, :] - camera.center_x
    x = (columns / camera.focal - camera.bend * z) * z
    fine = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
    broad = 2.0 * smooth_noise(rng, _TILE, _TILE, (12, 12))
    shift_x, shift_z = rng.uniform(0, _TILE, size=2).tolist()
    down = _mirrored(z * _CELLS_PER_METRE * 0.5 + shift_z)
    across = _mirrored(x * _CELLS_PER_METRE + shift_x)
    fade = np.minimum(1.0, 12.0 / z)
    return (0.6 * fine + broad)[np.broadcast_to(down, across.shape), across] * fade


def _mirrored(position: np.ndarray) -> np.ndarray:
    """Indices of a tile that is laid to and fro, so that its edges meet without a seam."""
    turn = np.floor(position).astype(np.int32) % (2 * _TILE)
    return np.minimum(turn, 2 * _TILE - 1 - turn)


def _vignette(width: int, height: int, strength: float) -> np.ndarray:
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    return 1 - strength * 0.5 * (down + across)
