"""Sliding windows and test-time augmentation, against one window at a time and one view at a time."""

import argparse
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_models import SMALL, varied_model
from torch import Tensor

from dinoidd.cli.window_options import add_window_options, windows_of
from dinoidd.config import SegmentConfig, Windows
from dinoidd.data.image import DecodedImage
from dinoidd.errors import ConfigError, ImageError
from dinoidd.inference.predictor import Predictor
from dinoidd.inference.scorer import make_scorer
from dinoidd.inference.window_predictor import WindowPredictor
from dinoidd.inference.windows import Framing, blend_weights, packed, window_corners, window_starts
from dinoidd.models.semantic import class_scores

SIZES = [(64, 64), (90, 131), (40, 200), (17, 33), (1, 1), (150, 64)]
CPU = torch.device("cpu")
ROUNDING = {"atol": 1e-3, "rtol": 0}  # it may flip a pixel of an attention mask; scores are 0..1


def windows(**values: object) -> Windows:
    return Windows(**{"size": 64, "stride": 40, "short_side": None, **values})


def drawn_images(sizes: list[tuple[int, int]]) -> list[DecodedImage]:
    draw = np.random.default_rng(0)
    pixels = (draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes)
    return [DecodedImage(image=Image.fromarray(p), note=None) for p in pixels]


def frames_of(how: Windows, sizes: list[tuple[int, int]]) -> list[list[np.ndarray]]:
    framing = Framing(image_size=64, windows=how)
    return [framing.frames(image, 10**6) for image in drawn_images(sizes)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(varied_model())


def loop_scores(predictor: Predictor, frame: np.ndarray, how: Windows) -> Tensor:
    """Scores [K, h, w] of one view, by a plain loop: a window, a forward, an addition."""
    height, width = frame.shape[:2]
    padded = -(-how.size // 32) * 32
    canvas = torch.zeros(SMALL.classes, height + padded, width + padded, dtype=torch.float64)
    weight = torch.zeros(height + padded, width + padded, dtype=torch.float64)
    bell = blend_weights(how, CPU).double()
    y = 0
    while True:
        y0 = max(min(y, height - how.size), 0)
        x = 0
        while True:
            x0 = max(min(x, width - how.size), 0)
            crop = frame[y0 : y0 + how.size, x0 : x0 + how.size]
            image = torch.zeros(1, 3, padded, padded)
            image[0, :, : crop.shape[0], : crop.shape[1]] = predictor.normalise(crop[None])[0]
            with torch.no_grad():
                (output,) = predictor.model(image)
            scores = class_scores(output.class_logits[0], output.mask_logits[0], (padded, padded))
            part = (slice(y0, y0 + how.size), slice(x0, x0 + how.size))
            canvas[:, *part] += scores[:, : how.size, : how.size].double() * bell
            weight[part] += bell
            if x + how.size >= width:
                break
            x += how.stride
        if y + how.size >= height:
            break
        y += how.stride
    return (canvas / weight)[:, :height, :width].float()


@pytest.mark.parametrize(
    "how",
    [
        windows(),
        windows(stride=64),
        windows(size=50, stride=7),
        windows(size=96, stride=30, blend="hann"),
        windows(size=33, stride=33, blend="hann"),
    ],
    ids=lambda how: f"{how.size}-{how.stride}-{how.blend}",
)
def test_scored__pooled_windows_are_the_plain_loop(predictor: Predictor, how: Windows) -> None:
    images = frames_of(how, SIZES)
    pooled = WindowPredictor(predictor, how, batch_size=5)
    found = list(pooled.scored(images, SIZES))
    assert [tuple(one.scores_Khw.shape[1:]) for one in found] == SIZES
    for one, (frame,) in zip(found, images, strict=True):
        expected = loop_scores(predictor, frame, how)
        torch.testing.assert_close(one.scores_Khw, expected, **ROUNDING)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_predict__batch_size_changes_nothing(predictor: Predictor, batch_size: int) -> None:
    how = windows(scales=(0.8, 1.0), flip=True)
    images = frames_of(how, SIZES[:3])
    expected = WindowPredictor(predictor, how, batch_size=8).predict(images, SIZES[:3])
    found = WindowPredictor(predictor, how, batch_size=batch_size).predict(images, SIZES[:3])
    for ours, theirs, size in zip(found, expected, SIZES, strict=False):
        assert ours.classes.shape == size
        assert (ours.classes == theirs.classes).mean() >= 0.999
        assert vars(ours.certainty) == pytest.approx(vars(theirs.certainty), abs=1e-5)
    assert len(np.unique(found[1].classes)) > 2, "a test on one class shows nothing"


def test_scored__views_are_the_mean_of_their_softmax(predictor: Predictor) -> None:
    """As the reference has it: windows on each view, resized, mirrored back, softmax, mean."""
    how, sizes = windows(scales=(0.9, 1.0, 1.3), flip=True), SIZES[1:3]
    images = frames_of(how, sizes)
    found = WindowPredictor(predictor, how, batch_size=4).scored(images, sizes)
    for one, frames, size in zip(found, images, sizes, strict=True):
        views = []
        for frame in frames:
            straight = loop_scores(predictor, frame, how)
            mirrored = loop_scores(predictor, frame[:, ::-1].copy(), how).flip(2)
            views += [straight, mirrored]
        resized = (F.interpolate(v[None], size, mode="bilinear")[0].softmax(0) for v in views)
        torch.testing.assert_close(one.scores_Khw, sum(resized) / 6, **ROUNDING)


def test_predict__one_window_is_the_whole_image(predictor: Predictor) -> None:
    how = windows()
    (whole,) = predictor.predict(np.stack([frames_of(how, [(64, 64)])[0][0]]), [(64, 64)])
    scorer = make_scorer(predictor.model, "cpu", how)
    (window,) = scorer.predict(frames_of(how, [(64, 64)]), [(64, 64)])
    assert np.array_equal(window.classes, whole.classes)
    assert vars(window.certainty) == pytest.approx(vars(whole.certainty), abs=1e-6)


def test_predict__no_images(predictor: Predictor) -> None:
    assert WindowPredictor(predictor, windows()).predict([], []) == []


def test_scored__batches_are_full_across_views_and_images(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = windows(scales=(0.7, 1.0), flip=True)
    images = frames_of(how, SIZES)
    count = sum(2 * len(window_corners(f.shape[:2], how)) for frames in images for f in frames)
    forward, batches = predictor.model.forward, []

    def counted(images_B3HW: Tensor, *rest: object) -> object:
        batches.append(tuple(images_B3HW.shape))
        return forward(images_B3HW, *rest)

    monkeypatch.setattr(predictor.model, "forward", counted)
    list(WindowPredictor(predictor, how, batch_size=7).scored(images, SIZES))
    full, left = divmod(count, 7)
    assert batches == [(7, 3, 64, 64)] * full + [(left, 3, 64, 64)] * (left > 0)
    assert full > 5


@pytest.mark.gpu
def test_predict__on_a_gpu_as_on_the_cpu() -> None:
    how = windows(scales=(0.8, 1.0), flip=True, blend="hann")
    images = frames_of(how, SIZES)
    on_cpu = WindowPredictor(Predictor(varied_model()), how).predict(images, SIZES)
    on_gpu = WindowPredictor(Predictor(varied_model(), "cuda"), how).predict(images, SIZES)
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert (ours.classes == theirs.classes).mean() > 0.99
        assert vars(ours.certainty) == pytest.approx(vars(theirs.certainty), abs=1e-2)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_predict__memory_that_is_short_halves_the_batch(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    how = windows()
    images = frames_of(how, SIZES)
    expected = WindowPredictor(predictor, how).predict(images, SIZES)
    forward, batches = predictor.model.forward, []

    def short_of_memory(images_B3HW: Tensor, *rest: object) -> object:
        batches.append(len(images_B3HW))
        if len(images_B3HW) > 3:
            raise error
        return forward(images_B3HW, *rest)

    monkeypatch.setattr(predictor.model, "forward", short_of_memory)
    found = WindowPredictor(predictor, how, batch_size=8).predict(images, SIZES)
    assert batches[:4] == [8, 4, 2, 2], "the batch that failed, by halves"
    assert max(batches[8:]) <= 3, "and no larger one afterwards"
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.classes == theirs.classes).mean() >= 0.999


def test_predict__a_window_that_does_not_fit_alone_is_told(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(predictor.model, "forward", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        WindowPredictor(predictor, windows()).predict(frames_of(windows(), [(9, 9)]), [(9, 9)])


@pytest.mark.parametrize(
    ("length", "size", "stride", "starts"),
    [
        (64, 64, 40, [0]),
        (10, 64, 40, [0]),
        (65, 64, 40, [0, 1]),
        (104, 64, 40, [0, 40]),
        (105, 64, 40, [0, 40, 41]),
        (1593, 896, 596, [0, 596, 697]),
    ],
)
def test_window_starts__last_one_ends_with_the_image(
    length: int, size: int, stride: int, starts: list[int]
) -> None:
    assert window_starts(length, size, stride) == starts


def test_blend_weights__hann_is_a_bell_without_zeros() -> None:
    bell = blend_weights(windows(blend="hann"), CPU)
    assert bell.shape == (64, 64)
    assert bell.min() > 0
    torch.testing.assert_close(bell, bell.flip(0, 1))
    overlapping = bell[:32] + bell[32:]  # half a window apart they sum up to one, along each axis
    torch.testing.assert_close(overlapping, overlapping[:1].expand(32, -1))
    assert bool((blend_weights(windows(), CPU) == 1).all())


def test_framing__shapes_keep_the_aspect() -> None:
    how = Windows(scales=(0.9, 1.0, 1.1), flip=True)
    framing = Framing(image_size=512, windows=how)
    assert framing.shapes((1080, 1920)) == [(806, 1434), (896, 1593), (986, 1752)]
    assert framing.shapes((1920, 1080)) == [(1434, 806), (1593, 896), (1752, 986)]
    assert Framing(image_size=512, windows=windows()).shapes((7, 5)) == [(7, 5)]
    assert Framing(image_size=512).shapes((1080, 1920)) == [(512, 512)]


@pytest.mark.parametrize("how", [None, windows(scales=(0.5, 1.0))])
def test_framing__bytes_and_back(how: Windows | None) -> None:
    framing = Framing(image_size=64, windows=how)
    (image,) = drawn_images([(30, 50)])
    frames = framing.frames(image, 10**6)
    back = framing.unpacked(memoryview(packed(frames)), image.size)
    assert [f.shape for f in back] == [(*shape, 3) for shape in framing.shapes(image.size)]
    assert all(map(np.array_equal, frames, back))


def test_framing__a_narrow_strip_is_too_large() -> None:
    framing = Framing(image_size=64, windows=Windows())
    (strip,) = drawn_images([(2, 900)])
    with pytest.raises(ImageError) as raised:
        framing.frames(strip, 10**8)
    assert raised.value.kind == "too_large"
    assert str(raised.value) == (
        "900 x 2 pixels become 403200 x 896 for the windows, over the limit of 100,000,000: raise "
        "--max-pixels, or use --short-side native"
    )


def test_framing__mode_is_the_old_one_for_whole_images() -> None:
    assert Framing(image_size=64).mode() == "whole image"
    assert Framing(image_size=64, windows=windows()).mode() == {
        "size": 64,
        "stride": 40,
        "short_side": None,
        "blend": "mean",
        "scales": [1.0],
        "flip": False,
    }


def test_windows__json_and_back() -> None:
    how = windows(scales=(0.5, 1.0), blend="hann")
    assert Windows.from_dict(how.to_dict()) == how
    assert Windows.from_dict(None) is None


@pytest.fixture
def asked() -> Callable[..., Windows | None]:
    parser = argparse.ArgumentParser()
    add_window_options(parser)
    return lambda *options: windows_of(parser.parse_args(options))


def test_options__defaults_are_those_of_the_reference(
    asked: Callable[..., Windows | None],
) -> None:
    five = (0.9, 0.95, 1.0, 1.05, 1.1)
    assert asked() is None
    assert asked("--window", "896") == Windows()
    assert asked("--tta") == Windows(scales=five, flip=True)
    assert asked("--tta", "1", "--window", "512") == Windows(
        size=512, stride=341, short_side=512, flip=True
    )
    assert asked("--window", "64", "--stride", "40", "--short-side", "native") == windows()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--stride", "9"], "--stride 9 goes with --window N: whole images have no windows"),
        (["--short-side", "9"], "--short-side 9 goes with --window N"),
        (["--window", "8"], "--window 8: at least 32 pixels are needed"),
        (["--window", "64", "--stride", "65"], "--stride 65: from 1 to the window's 64"),
        (["--window", "64", "--short-side", "x"], "--short-side x: pixels, or native, are needed"),
        (["--window", "64", "--short-side", "0"], "--short-side 0: at least 1 pixel is needed"),
        (["--tta", "1,a"], "--tta 1,a: scales like 0.9,0.95,1,1.05,1.1 are needed"),
        (["--tta", "0,1"], "--tta 0.0,1.0: scales from 0.1 to 10 are needed"),
    ],
)
def test_options__mistakes(
    asked: Callable[..., Windows | None], options: list[str], told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        asked(*options)
    assert told in str(raised.value)


def test_segment_config__windows_have_no_square() -> None:
    told = "--image-size 64 is of whole images: leave it out with --window"
    with pytest.raises(ConfigError, match=told):
        SegmentConfig(input="a", output="b", preset="tiny", image_size=64, windows=windows())
