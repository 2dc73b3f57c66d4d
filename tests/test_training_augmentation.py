"""Augmentation: image and label move together, and everything follows from seed, frame and view."""

import os

import numpy as np
import pytest
from PIL import Image

from dinoidd.training.augmentation import MEAN_COLOR, Augmentation, ColorChange, Geometry
from dinoidd.training.config import AugmentationConfig

SIZE = 64
BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


def augmentation(seed: int = 0, **settings: object) -> Augmentation:
    return Augmentation(config=AugmentationConfig(**settings), seed=seed)


def blocks() -> np.ndarray:
    """Class ids 0..11 in a grid of large blocks, 96 rows by 160 columns; uint8."""
    return np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((32, 40), np.uint8))


def painted(ids: np.ndarray) -> Image.Image:
    """An image that shows the ids: 20 grey levels a class, and the mean colour for void."""
    return Image.fromarray((ids * 20).astype(np.uint8)).convert("RGB")


def apply(
    geometry: Geometry, colors: ColorChange, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(colors.apply(geometry.cut(painted(ids), BILINEAR)))
    label = np.asarray(geometry.cut(Image.fromarray(ids), NEAREST))
    return geometry.place(image, MEAN_COLOR), geometry.place(label, 255)


def test_draw__off_is_the_plain_resize() -> None:
    geometry, colors = augmentation().draw("train/0/a", 3, SIZE)
    assert (geometry, colors) == (Geometry.whole(SIZE), ColorChange())
    image, label = apply(geometry, colors, blocks())
    assert np.array_equal(image, np.asarray(painted(blocks()).resize((SIZE, SIZE), BILINEAR)))
    resized = Image.fromarray(blocks()).resize((SIZE, SIZE), NEAREST)
    assert np.array_equal(label, np.asarray(resized))


def test_draw__image_and_label_stay_aligned() -> None:
    drawn = augmentation(flip=True, scale=(0.5, 2.0))
    for view in range(40):
        image, label = apply(*drawn.draw("a", view, SIZE), blocks())
        assert image.shape == (SIZE, SIZE, 3)
        void = label == 255
        shown = np.rint(image[..., 0] / 20).astype(int)
        # Pixels on the edges of blocks are blends; they are few.
        assert (shown[~void] == label[~void]).mean() > 0.85
        assert (image[void] == MEAN_COLOR).all()


def test_draw__same_for_seed_frame_and_view_alone() -> None:
    settings = {"flip": True, "scale": (0.5, 2.0), "photometric": 1.0}
    first = [augmentation(7, **settings).draw("a", view, SIZE) for view in range(6)]
    again = [augmentation(7, **settings).draw("a", view, SIZE) for view in reversed(range(6))]
    assert first == again[::-1]
    assert len({repr(d) for d in first}) == 6
    assert augmentation(8, **settings).draw("a", 0, SIZE) != first[0]
    assert augmentation(7, **settings).draw("b", 0, SIZE) != first[0]


def test_draw__known_values() -> None:
    """Caches are kept for long: another draw would make them stale without anyone knowing."""
    drawn = augmentation(7, scale=(0.5, 2.0))
    geometry, _ = drawn.draw("train/0/001", 2, SIZE)
    assert geometry.box == pytest.approx((0.3530978, 0.3252838, 0.9320104, 0.9041964), abs=1e-6)
    other, _ = drawn.draw(os.fsdecode(b"train/caf\xe9"), 0, SIZE)  # a name that is not UTF-8
    assert other != drawn.draw("train/caf", 0, SIZE)[0]


def test_draw__flips_half_and_mirrors() -> None:
    drawn = [augmentation(flip=True).draw("a", view, SIZE)[0] for view in range(200)]
    assert 70 < sum(g.flip for g in drawn) < 130
    part = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    mirrored = Geometry(size=SIZE, side=SIZE, flip=True).place(part, 255)
    assert np.array_equal(mirrored, part[:, ::-1])


def test_draw__scales_over_the_whole_range() -> None:
    drawn = [augmentation(scale=(0.5, 2.0)).draw("a", view, SIZE)[0] for view in range(300)]
    scales = [g.side / SIZE / (g.box[2] - g.box[0]) for g in drawn]
    assert min(scales) < 0.6
    assert max(scales) > 1.9
    for g in drawn:
        assert 0 <= g.left <= g.size - g.side
        assert 0 <= g.top <= g.size - g.side
        assert 0 <= g.box[0] < g.box[2] <= 1
        assert 0 <= g.box[1] < g.box[3] <= 1
        assert g.side == SIZE or g.box == (0, 0, 1, 1)


def test_cut__a_crop_keeps_the_originals_resolution() -> None:
    fine = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)  # a checkerboard of pixels
    corner = Geometry(size=SIZE, side=SIZE, box=(0, 0, 0.5, 0.5))
    cut = np.asarray(corner.cut(Image.fromarray(fine), BILINEAR))
    assert np.array_equal(cut, fine[:SIZE, :SIZE])


def test_color_change__each_does_what_it_is_called() -> None:
    gray = Image.new("RGB", (2, 2), (100, 100, 100))
    red = Image.new("RGB", (2, 2), (200, 100, 100))
    assert ColorChange(brightness=20).apply(gray).getpixel((0, 0)) == (120, 120, 120)
    assert ColorChange(contrast=1.5).apply(gray).getpixel((0, 0)) == (150, 150, 150)
    both = ColorChange(brightness=20, contrast=0.5).apply(red).getpixel((0, 0))
    assert both == (110, 60, 60)
    assert ColorChange(saturation=0.5).apply(gray) == gray
    pale = ColorChange(saturation=0.5).apply(red).getpixel((0, 0))
    assert pale == pytest.approx((200, 150, 150), abs=1)
    turned = ColorChange(hue=18).apply(red).getpixel((0, 0))
    assert turned == pytest.approx((200, 130, 100), abs=4)
    assert ColorChange().apply(red) is red


def test_color_change__last_contrast_is_after_saturation() -> None:
    red = Image.new("RGB", (1, 1), (250, 100, 100))
    first = ColorChange(contrast=1.5, saturation=0.5).apply(red).getpixel((0, 0))
    last = ColorChange(contrast=1.5, saturation=0.5, contrast_last=True).apply(red).getpixel((0, 0))
    assert first == pytest.approx((255, 202, 202), abs=2)  # clipped, then paled
    assert last == pytest.approx((255, 255, 255), abs=2)


def test_draw__photometric_stays_in_its_ranges() -> None:
    drawn = [augmentation(photometric=1.0).draw("a", view, SIZE)[1] for view in range(300)]
    for name, low, high, off in [
        ("brightness", -32, 32, 0),
        ("contrast", 0.5, 1.5, 1),
        ("saturation", 0.5, 1.5, 1),
        ("hue", -18, 18, 0),
    ]:
        values = np.array([getattr(c, name) for c in drawn])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)
        assert 0.35 < (values == off).mean() < 0.65
