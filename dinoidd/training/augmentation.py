"""What an image and its label go through together; every draw follows from seed, image and view."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dinoidd.training.config import AugmentationConfig
from dinoidd.training.key_bytes import key_bytes

MEAN_COLOR = (124, 116, 104)  # of web images; it fills what a shrunken image leaves of the square
# Ranges of the photometric distortion: those of SSD (arXiv 1512.02325), which Mask2Former trains with.
_BRIGHTNESS = 32.0  # of 255, either way
_FACTOR = 0.5  # of contrast and saturation, either way of 1
_HUE = 18.0  # degrees, either way
_LEVELS = np.arange(256, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Which part of an image goes where in the square of S pixels."""

    size: int  # S
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # left, top, right, bottom: 0..1
    side: int  # n pixels of the square that the part is resized to; less than S leaves a margin
    left: int = 0
    top: int = 0
    flip: bool = False

    @classmethod
    def whole(cls, size: int) -> "Geometry":
        """The image resized to the square, as inference does."""
        return cls(size=size, side=size)

    def cut(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        """The part [n, n] of an image of any size, resampled once, from the full resolution."""
        width, height = image.size
        left, top, right, bottom = self.box
        box = (left * width, top * height, right * width, bottom * height)
        return image.resize((self.side, self.side), resampling, box=box)

    def place(self, part: np.ndarray, fill: int | tuple[int, int, int]) -> np.ndarray:
        """The part, [n, n] or [n, n, 3] uint8, in the square [S, S, ...], `fill` around it."""
        if self.side == self.size:
            square = part
        else:
            square = np.empty((self.size, self.size, *part.shape[2:]), part.dtype)
            square[:] = fill
            square[self.top : self.top + self.side, self.left : self.left + self.side] = part
        return np.ascontiguousarray(square[:, ::-1]) if self.flip else square


@dataclass(frozen=True, kw_only=True)
class ColorChange:
    """A photometric distortion; the defaults change nothing."""

    brightness: float = 0.0  # added, of 255
    contrast: float = 1.0  # a factor of the values
    contrast_last: bool = False
    saturation: float = 1.0
    hue: float = 0.0  # degrees

    def apply(self, image: Image.Image) -> Image.Image:
        """The RGB image, changed."""
        last = self.contrast if self.contrast_last else 1.0
        image = _leveled(image, self.brightness, self.contrast / last)
        if self.saturation != 1 or self.hue:
            image = _recolored(image, self.saturation, self.hue)
        return _leveled(image, 0.0, last)


@dataclass(frozen=True)
class Augmentation:
    """Draws what happens to an image. Picklable, without state."""

    config: AugmentationConfig
    seed: int

    def draw(self, key: str, view: int, size: int) -> tuple[Geometry, ColorChange]:
        """The same for the same seed, frame and view, whoever asks and in whatever order."""
        digest = hashlib.blake2b(key_bytes(key), digest_size=8).digest()
        generator = np.random.default_rng((self.seed, int.from_bytes(digest, "little"), view))
        flip = bool(generator.random() < 0.5) and self.config.flip
        scale = generator.uniform(*self.config.scale)
        geometry = _scaled(size, scale, *generator.random(2), flip=flip)
        strength = self.config.photometric
        return geometry, _color_change(generator, strength) if strength else ColorChange()


def _scaled(size: int, scale: float, across: float, down: float, *, flip: bool) -> Geometry:
    """`across` and `down`, 0..1: where the crop is in the image, or the image in the square."""
    if scale >= 1:
        part = 1 / scale
        left, top = across * (1 - part), down * (1 - part)
        box = (left, top, min(1.0, left + part), min(1.0, top + part))
        return Geometry(size=size, box=box, side=size, flip=flip)
    side = max(1, round(size * scale))
    free = size - side
    return Geometry(
        size=size, side=side, left=round(across * free), top=round(down * free), flip=flip
    )


def _color_change(generator: np.random.Generator, strength: float) -> ColorChange:
    """Each distortion half of the time."""
    brightness, contrast, saturation, hue, last = generator.random(5) < 0.5
    b, c, s, h = (strength * generator.uniform(-1, 1, 4)).tolist()
    return ColorChange(
        brightness=b * _BRIGHTNESS if brightness else 0.0,
        contrast=1 + c * _FACTOR if contrast else 1.0,
        contrast_last=bool(last),
        saturation=1 + s * _FACTOR if saturation else 1.0,
        hue=h * _HUE if hue else 0.0,
    )


def _leveled(image: Image.Image, offset: float, factor: float) -> Image.Image:
    if offset == 0 and factor == 1:
        return image
    return image.point(_table(np.clip(_LEVELS + offset, 0, 255) * factor) * 3)


def _recolored(image: Image.Image, saturation: float, degrees: float) -> Image.Image:
    hue, chroma, value = image.convert("HSV").split()
    if degrees:
        turned = np.rint(_LEVELS + degrees * 256 / 360) % 256
        hue = hue.point(_table(turned))
    if saturation != 1:
        chroma = chroma.point(_table(_LEVELS * saturation))
    return Image.merge("HSV", (hue, chroma, value)).convert("RGB")


def _table(values: np.ndarray) -> list[int]:
    """A lookup table of 256 levels."""
    return np.rint(np.clip(values, 0, 255)).astype(int).tolist()
