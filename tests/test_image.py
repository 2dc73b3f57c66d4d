"""Every kind of image file becomes RGB pixels, or an error with its kind."""

import io
import random

import numpy as np
import pytest
from image_files import LIMIT, encoded, opened, oriented, picture, png
from PIL import Image, ImageFile

from dinoidd.data.image import DecodedImage, decode_image
from dinoidd.errors import ImageError

LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
LOSSLESS += [("TIFF", {"compression": "tiff_deflate"}), ("WEBP", {"lossless": True})]
LOSSY = [("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("WEBP", {"quality": 95})]


def decode(data: bytes, max_pixels: int = LIMIT) -> DecodedImage:
    return decode_image(data, max_pixels=max_pixels)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).image)


def kind_of(data: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels)
    return caught.value.kind


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_decode__lossless_formats(kind: str, options: dict[str, object]) -> None:
    decoded = decode(encoded(picture(), kind, **options))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(picture()))
    assert decoded.size == (30, 44)
    assert decoded.note is None


@pytest.mark.parametrize(("kind", "options"), LOSSY)
def test_decode__lossy_formats(kind: str, options: dict[str, object]) -> None:
    decoded = decode(encoded(picture(), kind, **options))
    difference = np.asarray(decoded.image).astype(int) - np.asarray(picture())
    assert np.abs(difference).mean() < 6
    assert decoded.note is None


def test_decode__grey_and_bilevel() -> None:
    grey = picture().convert("L")
    for image, word in ((grey, "grayscale"), (grey.convert("1"), "bilevel")):
        decoded = decode(encoded(image, "PNG"))
        expected = np.asarray(image.convert("L"))
        assert np.array_equal(np.asarray(decoded.image), np.stack([expected] * 3, axis=-1))
        assert decoded.note == f"{word}, converted to RGB"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_decode__alpha_is_dropped(mode: str, kind: str) -> None:
    image = picture().convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    decoded = decode(encoded(image, kind))
    expected = image.getchannel("L") if mode == "LA" else picture()
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected.convert("RGB")))
    assert decoded.note is not None
    assert decoded.note.endswith("alpha dropped")


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(0, 160, 10))])
def test_decode__palette(transparency: int | bytes | None) -> None:
    image = picture().quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    decoded = decode(encoded(image, "PNG", **options))
    colors = np.array(image.getpalette()).reshape(-1, 3)
    assert np.array_equal(np.asarray(decoded.image), colors[np.asarray(image)])
    assert decoded.note == "palette, converted to RGB"


def test_decode__cmyk_jpeg() -> None:
    paper = Image.new("CMYK", (32, 16))
    paper.paste((0, 0, 0, 255), (0, 0, 16, 16))
    decoded = decode(encoded(paper, "JPEG", quality=95))
    left, right = np.asarray(decoded.image)[:, :12], np.asarray(decoded.image)[:, -12:]
    assert left.max() < 10
    assert right.min() > 245
    assert decoded.note == "CMYK, converted to RGB"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_decode__sixteen_bit_grey(kind: str, order: str) -> None:
    wide = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 34
    decoded = decode(encoded(Image.fromarray(wide.astype(order)), kind))
    expected = np.stack([wide >> 8] * 3, axis=-1).astype(np.uint8)
    assert np.array_equal(np.asarray(decoded.image), expected)
    assert decoded.note == "16-bit grayscale, converted to RGB"


def test_decode__sixteen_bit_rgb_png() -> None:
    wide = np.random.default_rng(1).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    assert np.array_equal(pixels(png(7, 5, 16, 2, rows)), wide >> 8)


def test_decode__float_tiff_is_unsupported() -> None:
    image = Image.fromarray(np.zeros((4, 4), np.float32))
    assert kind_of(encoded(image, "TIFF")) == "unsupported"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_decode__animation_gives_first_frame(kind: str) -> None:
    first, second = picture(seed=1), picture(seed=2)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second, first], **options)
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(first))
    assert decoded.note is not None
    assert decoded.note.startswith("first of 3 frames")


def test_decode__mpo_is_its_first_picture() -> None:
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture(seed=2)], quality=95)
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(opened(data).convert("RGB")))
    assert decoded.note is None


def test_decode__empty() -> None:
    assert kind_of(b"") == "empty"


@pytest.mark.parametrize("data", [b"\0", b"not an image at all", b"<html>", b"{}", b"BM", b"%PDF"])
def test_decode__not_an_image(data: bytes) -> None:
    assert kind_of(data) == "not_an_image"


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA", "JPEG2000"])
def test_decode__unsupported_format(kind: str) -> None:
    with pytest.raises(ImageError, match="JPEG, PNG, WebP, TIFF and BMP can be read") as caught:
        decode(encoded(picture(), kind))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize(
    ("kind", "options"),
    [*LOSSY, ("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {})],
)
def test_decode__truncated(kind: str, options: dict[str, object], part: float) -> None:
    data = encoded(picture(300, 440), kind, **options)
    assert kind_of(data[: int(len(data) * part)]) == "truncated"


@pytest.mark.parametrize("length", [4, 8, 16, 24, 40])
def test_decode__truncated_in_its_header(length: int) -> None:
    assert kind_of(encoded(picture(), "JPEG")[:length]) == "truncated"
    assert kind_of(encoded(picture(), "PNG")[: length + 8]) == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_decode__too_many_pixels(kind: str) -> None:
    data = encoded(picture(), kind)
    assert decode(data, max_pixels=30 * 44).size == (30, 44)
    assert kind_of(data, max_pixels=30 * 44 - 1) == "too_large"


@pytest.mark.parametrize("size", [12_000, 60_000])
def test_decode__too_many_pixels_told_before_decoding(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=f"{size} x {size} pixels, over the limit of 100,000,000"):
        decode(png(size, size, 8, 2, b"\0"))


def test_decode__limit_above_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(20_000, 10_000, 1, 0, b"\0")
    assert kind_of(data, max_pixels=199_999_999) == "too_large"
    reached = ImageError("corrupt", "the decoder was reached")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (_ for _ in ()).throw(reached))
    with pytest.raises(ImageError, match="the decoder was reached"):
        decode(data, max_pixels=200_000_000)


FLIPPED = [("JPEG", {"exif": oriented(6)}), ("PNG", {"exif": oriented(6)}), ("WEBP", {})]
FLIPPED += [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})]


@pytest.mark.parametrize(("kind", "options"), FLIPPED)
def test_decode__random_damage_raises_image_errors_alone(
    kind: str, options: dict[str, object]
) -> None:
    data = encoded(picture(), kind, **options)
    outcomes = set()
    for seed in range(50):
        draw = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 2, 5, 20])):
            damaged[draw.randrange(draw.choice([64, 300, len(data)]))] = draw.randrange(256)
        try:
            outcomes.add(decode(bytes(damaged), max_pixels=1_000_000).image.mode)
        except ImageError as error:
            outcomes.add(error.kind)
    assert outcomes <= {"RGB", "not_an_image", "truncated", "corrupt", "unsupported", "too_large"}
    assert len(outcomes) > 1


def test_resized__to_its_own_size_and_others() -> None:
    decoded = decode(encoded(picture(), "PNG"))
    assert np.array_equal(decoded.resized((30, 44)), np.asarray(picture()))
    small = decoded.resized((16, 20))
    assert (small.shape, small.dtype, small.flags.c_contiguous) == ((16, 20, 3), np.uint8, True)
    expected = picture().resize((20, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(small, np.asarray(expected))


def test_image_error__survives_pickling() -> None:
    import pickle

    with pytest.raises(ImageError) as caught:
        decode(b"")
    copy = pickle.load(io.BytesIO(pickle.dumps(caught.value)))
    assert (copy.kind, str(copy)) == ("empty", str(caught.value))
