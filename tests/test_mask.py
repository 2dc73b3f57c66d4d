import io

import numpy as np
import pytest
from PIL import Image

from dinoidd.classes import IDD
from dinoidd.errors import ImageError
from dinoidd.output.mask import count_pixels, decode_mask, encode_mask, open_mask, palette_of


def random_mask(height: int, width: int, classes: int = len(IDD)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, classes, (height, width), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (33, 17), (300, 200)])
def test_encode_mask__decodes_to_the_same_classes(height, width):
    mask = random_mask(height, width)
    decoded = decode_mask(encode_mask(mask, IDD))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


def test_encode_mask__not_contiguous():
    mask = random_mask(20, 30)[::-2, 3::3]
    np.testing.assert_array_equal(decode_mask(encode_mask(mask, IDD)), mask)


def test_encode_mask__opens_in_class_colours_everywhere():
    mask = random_mask(5, 40)
    rgb = np.asarray(Image.open(io.BytesIO(encode_mask(mask, IDD))).convert("RGB"))
    colors = np.array([c.color for c in IDD.classes], dtype=np.uint8)
    np.testing.assert_array_equal(rgb, colors[mask])


def test_encode_mask__8_bits_also_with_one_class():
    png = encode_mask(np.zeros((4, 4), np.uint8), IDD)
    image = open_mask(png)
    assert (image.mode, png[24]) == ("P", 8)
    assert palette_of(image, len(IDD)) == [c.color for c in IDD.classes]


def test_encode_mask__street_like_is_small():
    mask = np.repeat(np.arange(25, -1, -1, dtype=np.uint8), 20)[:, None].repeat(960, axis=1)
    assert len(encode_mask(mask, IDD)) < mask.size / 50


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), np.int64), np.zeros((1, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_encode_mask__wrong_array(mask):
    with pytest.raises(ValueError, match="a mask is uint8 HxW, not"):
        encode_mask(mask, IDD)


def test_decode_mask__truncated():
    png = encode_mask(random_mask(64, 64), IDD)
    with pytest.raises(ImageError, match=r"the mask \(2000 bytes\) is a damaged PNG") as error:
        decode_mask(png[:2000])
    assert error.value.kind == "truncated"


def test_decode_mask__one_byte_altered():
    png = bytearray(encode_mask(random_mask(64, 64), IDD))
    png[-500] ^= 1
    with pytest.raises(ImageError, match="is a damaged PNG"):
        decode_mask(bytes(png))


def test_decode_mask__not_an_image():
    with pytest.raises(ImageError, match=r"the mask \(5 bytes\) is not a PNG") as error:
        decode_mask(b"hello")
    assert error.value.kind == "not_an_image"


def test_decode_mask__not_a_palette():
    png = io.BytesIO()
    Image.new("RGB", (3, 3)).save(png, "PNG")
    with pytest.raises(ImageError) as error:
        decode_mask(png.getvalue())
    assert str(error.value) == "the mask is a PNG of mode RGB with 8 bits, not P, 8"


def test_count_pixels__equals_numpy():
    mask = random_mask(33, 44)
    assert count_pixels(mask, len(IDD)) == np.bincount(mask.ravel(), minlength=len(IDD)).tolist()


def test_count_pixels__class_outside_the_table():
    mask = np.array([[0, 26]], np.uint8)
    with pytest.raises(ValueError, match="class ids up to 26 in a mask of 26 classes"):
        count_pixels(mask, len(IDD))
