"""EXIF turns an image upright, and broken EXIF harms nothing."""

import random

import numpy as np
import pytest
from image_files import LIMIT, encoded, opened, oriented, picture
from PIL import ImageOps

from dinoidd.data.image import DecodedImage, decode_image


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode__exif_orientation(kind: str, orientation: int) -> None:
    data = encoded(picture(), kind, exif=oriented(orientation))
    expected = ImageOps.exif_transpose(opened(data)).convert("RGB")
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected))
    assert decoded.size == ((44, 30) if orientation >= 5 else (30, 44))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: np.rot90(a, 2)),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_decode__exif_orientation_by_definition(orientation: int, turned) -> None:
    decoded = decode(encoded(picture(), "PNG", exif=oriented(orientation)))
    assert np.array_equal(np.asarray(decoded.image), turned(np.asarray(picture())))
    assert decoded.note == f"turned by EXIF orientation {orientation}"


def test_decode__exif_orientation_of_grey_image() -> None:
    decoded = decode(encoded(picture().convert("L"), "PNG", exif=oriented(6)))
    assert decoded.size == (44, 30)
    assert decoded.note == "grayscale, converted to RGB; turned by EXIF orientation 6"


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_decode__unknown_orientation_is_ignored(orientation: int) -> None:
    decoded = decode(encoded(picture(), "PNG", exif=oriented(orientation)))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(picture()))


def test_decode__orientation_that_is_no_number_is_ignored() -> None:
    as_text = oriented(6).tobytes().replace(b"\x01\x12\0\x03", b"\x01\x12\0\x02")
    assert isinstance(opened(encoded(picture(), "PNG", exif=as_text)).getexif()[0x0112], str)
    assert decode(encoded(picture(), "PNG", exif=as_text)).size == (30, 44)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decode__corrupt_exif_does_not_fail_the_image(kind: str) -> None:
    exif = oriented(6).tobytes()
    for seed in range(40):
        draw = random.Random(seed)
        broken = bytearray(exif[: draw.choice([len(exif), draw.randrange(6, len(exif))])])
        for _ in range(draw.choice([1, 4, 16])):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        decoded = decode(encoded(picture(), kind, exif=bytes(broken)))
        assert sorted(decoded.size) == [30, 44]
