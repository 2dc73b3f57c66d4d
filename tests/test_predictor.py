"""Inference: batches of images of any original size, and what a broken output becomes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import SMALL, drawn_model, small_table, varied_model

from dinoidd.checkpoint.load import cast
from dinoidd.errors import ClassTableError, ConfigError
from dinoidd.inference.predictor import Predictor
from dinoidd.inference.source import ModelSource
from dinoidd.models.config import SAT_MEAN, SAT_STD
from dinoidd.models.semantic import certainty, class_scores
from dinoidd.segment.stages import _answer

SIZES = [(64, 64), (48, 100), (131, 33), (1, 1), (700, 3)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(varied_model())


def drawn_pixels(batch: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def test_predict__sizes_types_and_range(predictor: Predictor) -> None:
    predictions = predictor.predict(drawn_pixels(5), SIZES)
    assert [p.classes.shape for p in predictions] == SIZES
    for prediction in predictions:
        assert prediction.classes.dtype == np.uint8
        assert prediction.classes.max() < SMALL.classes
        values = vars(prediction.certainty)
        assert set(values) == {"confidence", "entropy", "margin"}
        assert all(isinstance(v, float) and 0 <= v <= 1 for v in values.values())
    assert len(np.unique(predictions[0].classes)) > 2, "a test on one class shows nothing"


def test_predict__batch_is_its_images_one_by_one(predictor: Predictor) -> None:
    pixels = drawn_pixels(5)
    together = predictor.predict(pixels, SIZES)
    for i, size in enumerate(SIZES):
        (alone,) = predictor.predict(pixels[i : i + 1], [size])
        assert (together[i].classes == alone.classes).mean() >= 0.999
        assert vars(together[i].certainty) == pytest.approx(vars(alone.certainty), abs=1e-5)


def test_predict__same_numbers_as_the_steps_apart(predictor: Predictor) -> None:
    pixels = drawn_pixels(1)
    mean, std = torch.tensor(SMALL.mean), torch.tensor(SMALL.std)
    image = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        (output,) = varied_model()(image)
    scores = class_scores(output.class_logits[0], output.mask_logits[0], (64, 64))
    resized = F.interpolate(scores[None], (90, 120), mode="bilinear", align_corners=False)[0]
    (prediction,) = predictor.predict(pixels, [(90, 120)])
    assert (torch.from_numpy(prediction.classes) == resized.argmax(0)).double().mean() > 0.999
    assert list(vars(prediction.certainty).values()) == pytest.approx(
        certainty(scores).tolist(), abs=1e-4
    )


def test_normalise__formula_and_satellite_statistics(predictor: Predictor) -> None:
    pixels = drawn_pixels(2)
    satellite = drawn_model()
    satellite.config = replace(SMALL, mean=SAT_MEAN, std=SAT_STD)
    for which, config in ((predictor, SMALL), (Predictor(satellite), satellite.config)):
        expected = (pixels / 255 - np.array(config.mean)) / np.array(config.std)
        found = which.normalise(pixels)
        assert found.shape == (2, 3, 64, 64)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_predict__read_only_pixels(predictor: Predictor) -> None:
    pixels = drawn_pixels(1)
    expected = predictor.predict(pixels, [(64, 64)])[0].classes
    pixels.flags.writeable = False
    assert np.array_equal(predictor.predict(pixels, [(64, 64)])[0].classes, expected)


def test_predict__sizes_that_do_not_match(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="zip"):
        predictor.predict(drawn_pixels(2), [(64, 64)])


def test_predict__bfloat16_agrees_roughly(predictor: Predictor) -> None:
    half = Predictor(cast(varied_model(), torch.bfloat16))
    assert half.normalise(drawn_pixels(1)).dtype == torch.bfloat16
    full_answer = predictor.predict(drawn_pixels(2), [(64, 64)] * 2)
    half_answer = half.predict(drawn_pixels(2), [(64, 64)] * 2)
    for ours, expected in zip(half_answer, full_answer, strict=True):
        assert (ours.classes == expected.classes).mean() > 0.8
        assert vars(ours.certainty) == pytest.approx(vars(expected.certainty), abs=0.05)


@pytest.mark.parametrize(("dtype", "rounded"), [(torch.float32, False), (torch.bfloat16, True)])
def test_predictor__float32_is_no_tf32_on_gpus(
    dtype: torch.dtype, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    Predictor(cast(drawn_model(), dtype))
    assert torch.backends.cudnn.allow_tf32 == rounded


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predict__output_that_is_no_number_becomes_an_error_row(bad: float) -> None:
    model = varied_model()
    model.query_decoder.classifier.bias[1] = bad
    (prediction,) = Predictor(model).predict(drawn_pixels(1), [(40, 50)])
    assert prediction.classes.shape == (40, 50)
    assert math.isnan(prediction.certainty.confidence)
    answer = _answer(prediction)
    assert answer["error_kind"] == "not_finite"
    assert "--dtype float32" in answer["error"]
    assert "classes" not in answer


def test_predict__one_broken_image_leaves_the_others(predictor: Predictor) -> None:
    pixels = drawn_pixels(3)
    expected = predictor.predict(pixels, [(64, 64)] * 3)
    clean = predictor.normalise

    def second_is_broken(images: np.ndarray) -> torch.Tensor:
        normalised = clean(images)
        normalised[1, 0, 5, 5] = math.nan
        return normalised

    broken = Predictor(varied_model())
    broken.normalise = second_is_broken  # type: ignore[method-assign]
    found = broken.predict(pixels, [(64, 64)] * 3)
    assert [_answer(p).get("error_kind") for p in found] == [None, "not_finite", None]
    for i in (0, 2):
        assert (found[i].classes == expected[i].classes).mean() >= 0.999


def test_model_source__random_weights_are_those_of_the_seed() -> None:
    first, second, other = (
        ModelSource(preset="tiny", seed=seed).load().state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not torch.equal(first["adapter.up.weight"], other["adapter.up.weight"])
    half = ModelSource(preset="tiny", seed=3, dtype="bfloat16").load().state_dict()
    assert torch.equal(half["adapter.up.weight"], first["adapter.up.weight"].bfloat16())


def test_model_source__fingerprint_follows_everything_that_matters() -> None:
    base = ModelSource(preset="tiny").describe()
    assert base.fingerprint(size=64) == ModelSource(preset="tiny").describe().fingerprint(size=64)
    others = [
        base.fingerprint(size=96),
        ModelSource(preset="tiny", seed=1).describe().fingerprint(size=64),
        ModelSource(preset="small").describe().fingerprint(size=64),
        ModelSource(preset="tiny", dtype="bfloat16").describe().fingerprint(size=64),
        replace(base, table=small_table()).fingerprint(size=64),
    ]
    assert len({base.fingerprint(size=64), *others}) == 6


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({}, ConfigError, "either --checkpoint FILE or --preset NAME"),
        ({"preset": "tiny", "checkpoint": "x"}, ConfigError, "either --checkpoint FILE"),
        ({"preset": "tiny", "dtype": "int4"}, ConfigError, "unknown dtype 'int4'"),
        ({"preset": "huge"}, ConfigError, "unknown preset 'huge': there are tiny"),
        ({"preset": "tiny", "classes": "none"}, ClassTableError, "unknown class table 'none'"),
    ],
)
def test_model_source__told_before_any_weight_is_loaded(
    options: dict[str, str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        ModelSource(**options).describe()
