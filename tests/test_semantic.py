"""Class scores, argmax and certainty, against plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.models import argmax
from dinoidd.models.argmax import argmax_classes, resized_argmax
from dinoidd.models.semantic import certainty, class_scores

SIZES = [(64, 96), (128, 192), (100, 150), (37, 211), (7, 5), (1, 1), (63, 95), (480, 640)]


def random_scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def as_dict(scores_KHW: Tensor) -> dict[str, float]:
    names = ("confidence", "entropy", "margin")
    return dict(zip(names, certainty(scores_KHW).tolist(), strict=True))


def plain_certainty(scores_KHW: Tensor) -> dict[str, float]:
    """The three means by their definitions, in float64, a pixel at a time."""
    sums = [0.0, 0.0, 0.0]
    pixels_NK = scores_KHW.double().flatten(1).T
    for pixel in pixels_NK:
        p = (pixel / pixel.sum()).tolist()
        first, second = sorted(p, reverse=True)[:2]
        entropy = -sum(q * math.log(q) for q in p if q > 0) / math.log(len(p))
        sums = [s + v for s, v in zip(sums, (first, entropy, first - second), strict=True)]
    names = ("confidence", "entropy", "margin")
    return {n: s / len(pixels_NK) for n, s in zip(names, sums, strict=True)}


@pytest.mark.parametrize("size", [(16, 24), (32, 48), (9, 31), (4, 6)])
def test_class_scores__plain_formula(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits_QK1, masks_Qhw = torch.randn(7, 6) * 3, torch.randn(7, 8, 12) * 5
    scores = class_scores(logits_QK1, masks_Qhw, size)
    resized = F.interpolate(masks_Qhw[None].double(), size, mode="bilinear", align_corners=False)
    expected = torch.einsum(
        "qc,qhw->chw", logits_QK1.double().softmax(-1)[:, :5], resized[0].sigmoid()
    )
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 48), (9, 31), (8, 12)])
def test_class_scores__in_memory_that_was_there(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits_QK1, masks_Qhw = torch.randn(7, 6) * 3, torch.randn(7, 8, 12) * 5
    room_QHW = torch.full((7, *size), torch.nan)
    scores = class_scores(logits_QK1, masks_Qhw, size, room_QHW)
    assert torch.equal(scores, class_scores(logits_QK1, masks_Qhw, size))
    assert not room_QHW.isnan().any()


def test_class_scores__does_not_change_its_input() -> None:
    logits, masks = torch.randn(3, 4), torch.randn(3, 8, 8)
    before = logits.clone(), masks.clone()
    class_scores(logits, masks, (8, 8))
    assert torch.equal(logits, before[0])
    assert torch.equal(masks, before[1])


def test_argmax_classes__first_of_equals() -> None:
    scores = torch.tensor([[1.0, 0.0, 3.0, 0.0], [1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 3.0, 0.0]])
    assert argmax_classes(scores).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("classes", [1, 2, 26, 255])
def test_argmax_classes__as_torch(classes: int) -> None:
    scores = random_scores(classes, 40, 50).mul(20).round()  # many ties
    found = argmax_classes(scores)
    best = scores == scores.amax(0)
    first = best.int().argmax(0)  # of the first maximum, which argmax of floats does not promise
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), first)


def test_argmax_classes__nan_is_no_class() -> None:
    scores = random_scores(5, 3, 3)
    scores[2, 1, 1] = math.nan
    found = argmax_classes(scores)
    assert found[1, 1] == 5
    assert (found == 5).sum() == 1


@pytest.mark.parametrize("size", SIZES)
def test_resized_argmax__as_interpolate_and_argmax(size: tuple[int, int]) -> None:
    scores = random_scores(26, 64, 96)
    found = resized_argmax(scores, size)
    resized = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    differs = found.long() != resized.argmax(0)
    top = resized.topk(2, dim=0).values
    assert found.shape == size
    assert found.dtype == torch.uint8
    assert ((top[0] - top[1])[differs] < 1e-6).all(), "classes differ where scores do not tie"
    assert differs.double().mean() < 1e-4


def test_resized_argmax__in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = random_scores(4, 16, 16)
    whole = resized_argmax(scores, (67, 45))
    monkeypatch.setattr("dinoidd.models.argmax._CHUNK_PIXELS", 100)
    assert torch.equal(resized_argmax(scores, (67, 45)), whole)
    monkeypatch.setattr("dinoidd.models.argmax._CHUNK_PIXELS", 1)
    assert torch.equal(resized_argmax(scores, (67, 45)), whole)


def patches(classes: int, size: tuple[int, int]) -> Tensor:
    """Scores that are highest in patches, as those of a street are."""
    coarse = random_scores(classes, 6, 6)[None]
    return F.interpolate(coarse, size, mode="bicubic", align_corners=False)[0].sigmoid()


@pytest.mark.parametrize("size", [(270, 480), (64, 97), (31, 40), (1, 1), (400, 20)])
def test_resized_argmax__at_borders_alone(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = patches(26, (64, 96))
    found = resized_argmax(scores, size)
    monkeypatch.setattr("dinoidd.models.argmax._CHUNK_PIXELS", 400)
    assert torch.equal(resized_argmax(scores, size), found)
    monkeypatch.setattr("dinoidd.models.argmax._DENSE_SHARE", -1)
    assert torch.equal(resized_argmax(scores, size), found)


def test_resized_argmax__computes_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    computed = argmax._Bilinear.some_pixels

    def counting(resize: argmax._Bilinear, pixels_N: Tensor) -> Tensor:
        asked.append(len(pixels_N))
        return computed(resize, pixels_N)

    monkeypatch.setattr(argmax._Bilinear, "some_pixels", counting)
    resized_argmax(patches(26, (128, 128)), (500, 700))
    assert 0 < sum(asked) < 0.3 * 500 * 700


@pytest.mark.parametrize("share", [-1.0, 1.0])
def test_resized_argmax__nan_is_no_class(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinoidd.models.argmax._DENSE_SHARE", share)
    scores = patches(5, (32, 32))
    scores[2, 10, 20] = math.nan
    found = resized_argmax(scores, (64, 64))
    assert found[21, 41] == 5  # its own pixels and those that mix it in
    assert (found == 5).sum() == 16


@pytest.mark.parametrize("shape", [(2, 5, 7), (26, 11, 13), (5, 130, 70)])
def test_certainty__plain_formula(shape: tuple[int, int, int]) -> None:
    scores = random_scores(*shape) ** 4
    assert as_dict(scores) == pytest.approx(plain_certainty(scores), abs=2e-5)


def test_certainty__tie_has_no_margin() -> None:
    scores = torch.tensor([0.4, 0.4, 0.1]).view(3, 1, 1).expand(3, 4, 4)
    assert as_dict(scores) == pytest.approx(plain_certainty(scores), abs=1e-6)
    assert as_dict(scores)["margin"] == 0


def test_certainty__extremes() -> None:
    sure = torch.zeros(4, 8, 8)
    sure[2] = 1
    assert as_dict(sure) == pytest.approx({"confidence": 1, "entropy": 0, "margin": 1})
    unsure = torch.full((4, 8, 8), 0.3)
    assert as_dict(unsure) == pytest.approx({"confidence": 0.25, "entropy": 1, "margin": 0})


@pytest.mark.parametrize("scale", [1e-6, 1e-13, 1e-20])
def test_certainty__pixels_that_no_query_covers(scale: float) -> None:
    scores = random_scores(6, 8, 8)
    scores[:, :4] *= scale
    assert as_dict(scores) == pytest.approx(plain_certainty(scores), abs=2e-5)


def test_certainty__no_score_at_all_is_no_knowledge() -> None:
    assert as_dict(torch.zeros(6, 8, 8)) == {"confidence": 0, "entropy": 1, "margin": 0}


def test_certainty__one_class() -> None:
    assert as_dict(torch.full((1, 4, 4), 0.2)) == pytest.approx(
        {"confidence": 1, "entropy": 0, "margin": 1}
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_certainty__one_bad_score_gives_nan(bad: float) -> None:
    scores = random_scores(6, 120, 120)
    scores[3, 100, 7] = bad
    assert not torch.isfinite(certainty(scores)).all()
