"""A folder of image files of every sort: good, odd, and broken in every way that is told apart."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from image_files import encoded, oriented, picture
from PIL import Image

MAX_PIXELS, MAX_BYTES = 100_000, 60_000  # limits that LARGE and HEAVY pass
GONE = "gone.png"  # listed, but not there


@dataclass(frozen=True)
class Sample:
    """A file, and the row it should give: rows and columns and a note, or a kind and its words."""

    make: Callable[[], bytes]
    size: tuple[int, int] | None = None
    note: str | None = None
    kind: str | None = None
    words: str = ""


def _noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _deep() -> Image.Image:
    ramp = np.linspace(0, 65_535, 24 * 36).reshape(24, 36)
    return Image.fromarray(ramp.astype(np.uint16))


def _animation(kind: str) -> bytes:
    frames = [picture(20, 30, seed=s) for s in (1, 2, 3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _holed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


GOOD = {
    "plain.jpg": Sample(lambda: encoded(picture(48, 64), "JPEG"), (48, 64)),
    "plain.png": Sample(lambda: encoded(picture(64, 48), "PNG"), (64, 48)),
    "plain.webp": Sample(lambda: encoded(picture(33, 65), "WEBP"), (33, 65)),
    "plain.tif": Sample(lambda: encoded(picture(50, 20), "TIFF"), (50, 20)),
    "plain.bmp": Sample(lambda: encoded(picture(21, 51), "BMP"), (21, 51)),
    "UPPER.JPEG": Sample(lambda: encoded(picture(30, 30), "JPEG"), (30, 30)),
    "dot.png": Sample(lambda: encoded(picture(1, 1), "PNG"), (1, 1)),
    "ribbon.png": Sample(lambda: encoded(picture(3, 400), "PNG"), (3, 400)),
    "model_size.png": Sample(lambda: encoded(picture(64, 64), "PNG"), (64, 64)),
    "grey.png": Sample(
        lambda: encoded(picture(24, 36).convert("L"), "PNG"),
        (24, 36),
        "grayscale, converted to RGB",
    ),
    "palette.png": Sample(
        lambda: encoded(picture(24, 36).convert("P"), "PNG"),
        (24, 36),
        "palette, converted to RGB",
    ),
    "alpha.png": Sample(
        lambda: encoded(picture(24, 36).convert("RGBA"), "PNG"), (24, 36), "alpha dropped"
    ),
    "deep.png": Sample(
        lambda: encoded(_deep(), "PNG"), (24, 36), "16-bit grayscale, converted to RGB"
    ),
    "cmyk.jpg": Sample(
        lambda: encoded(picture(24, 36).convert("CMYK"), "JPEG"),
        (24, 36),
        "CMYK, converted to RGB",
    ),
    "turned.jpg": Sample(
        lambda: encoded(picture(24, 36), "JPEG", exif=oriented(6)),
        (36, 24),
        "turned by EXIF orientation 6",
    ),
    "moving.webp": Sample(lambda: _animation("WEBP"), (20, 30), "first of 3 frames"),
    "moving.png": Sample(lambda: _animation("PNG"), (20, 30), "first of 3 frames"),
}
BROKEN = {
    "empty.jpg": Sample(lambda: b"", kind="empty", words="no bytes"),
    "text.png": Sample(lambda: b"<html>404</html>", kind="not_an_image", words="3c 68 74 6d 6c"),
    "half.jpg": Sample(
        lambda: _half(encoded(_noise(40, 60), "JPEG")), kind="truncated", words="truncated"
    ),
    "half.png": Sample(
        lambda: _half(encoded(_noise(40, 60), "PNG")), kind="truncated", words="truncated"
    ),
    "holed.png": Sample(lambda: _holed(encoded(_noise(40, 60), "PNG")), kind="corrupt", words=":"),
    "gif.jpg": Sample(lambda: encoded(picture(), "GIF"), kind="unsupported", words="a GIF file"),
    "large.png": Sample(
        lambda: encoded(Image.new("1", (400, 300)), "PNG"),
        kind="too_large",
        words="400 x 300 pixels, over the limit of 100,000",
    ),
    "heavy.bmp": Sample(
        lambda: encoded(picture(150, 150), "BMP"),
        kind="too_large",
        words="67,854 bytes, more than the limit of 60,000",
    ),
}
MISSING = Sample(lambda: b"", kind="missing", words="there is no such file")
SAMPLES = GOOD | BROKEN | {GONE: MISSING}


def write_samples(folder: Path, samples: dict[str, Sample] = SAMPLES) -> Path:
    """Make the files, and a list of them, GONE included; returns the list's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sample in samples.items():
        if name != GONE:
            (folder / name).write_bytes(sample.make())
    listed = folder / "list.txt"
    listed.write_text("".join(f"{name}\n" for name in samples))
    return listed


def write_plain(folder: Path, images: int, *, first: int = 0, size: int = 32) -> Path:
    """Small valid PNGs that differ, `0000.png` and on; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + images):
        image = picture(size, size + i % 3, seed=i)
        (folder / f"{i:04d}.png").write_bytes(encoded(image, "PNG"))
    return folder
