"""The loss of the semantic map, against a plain writing of it."""

import math

import numpy as np
import pytest
import torch
from training_runs import VOID

from dinoidd.errors import TrainingError
from dinoidd.training.config import LossConfig
from dinoidd.training.criterion import SetCriterion
from dinoidd.training.observation import Observation
from dinoidd.training.pixel_loss import PixelCriterion, PointValues

FLOOR = 1e-3


def plain(logits_QK1: torch.Tensor, inside_QP: torch.Tensor, labels: list[int]) -> float:
    """One layer's loss, number by number."""
    chances = logits_QK1.softmax(-1)
    queries, classes = len(logits_QK1), logits_QK1.shape[1] - 1
    costs = []
    for p, label in enumerate(labels):
        scores = [
            sum(float(chances[q, k] * inside_QP[q, p]) for q in range(queries)) + FLOOR
            for k in range(classes)
        ]
        if label < classes:
            costs.append(-math.log(scores[label] / sum(scores)))
    return sum(costs) / len(costs)


def drawn(layers: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, layers, 5, 4, generator=generator)
    return logits, torch.rand(layers, 5, 6, generator=generator), [0, 2, VOID, 1, 2, 0]


def test_pixel_loss__plain_formula() -> None:
    logits, inside, labels = drawn()
    values = PointValues(inside, torch.tensor(labels, dtype=torch.uint8))
    total_B, parts = PixelCriterion(LossConfig(kind="pixel"), 3).losses(logits, [values])
    first, last = (plain(logits[0, i], inside[i], labels) for i in range(2))
    torch.testing.assert_close(total_B, torch.tensor([0.5 * first + last]))
    assert list(parts) == ["pixel"]


def test_pixel_loss__points_weigh_as_their_classes() -> None:
    logits, inside, labels = drawn(layers=1)
    values = PointValues(inside, torch.tensor(labels, dtype=torch.uint8))
    loss = LossConfig(kind="pixel", class_weights=(1.0, 1.0, 3.0))
    total_B, _ = PixelCriterion(loss, 3).losses(logits, [values])
    often = [k for k in labels for _ in range(3 if k == 2 else 1)]
    points = [i for i, k in enumerate(labels) for _ in range(3 if k == 2 else 1)]
    expected = plain(logits[0, 0], inside[0][:, points], often)
    torch.testing.assert_close(total_B, torch.tensor([expected]))


def test_recall__cache_of_another_loss() -> None:
    """Each loss tells that of the other's arrays."""
    costs = {n: np.zeros(1) for n in ("classes_G", "match_bce_LQG")}
    queries = np.zeros((1, 2, 3), np.float32)
    seen = Observation(key="train/0/a", view=0, queries_LQC=queries, **costs)
    remedy = "it was made for another loss. Remove that cache, or name another folder with cache"
    has = "(it has queries_LQC, classes_G, match_bce_LQG)"
    for criterion, name in (
        (PixelCriterion(LossConfig(kind="pixel"), 3), "inside_LQP"),
        (SetCriterion(LossConfig(), 3), "match_dice_LQG"),
    ):
        with pytest.raises(TrainingError) as raised:
            criterion.recall(seen)
        told = f"the cache's observation of 'train/0/a' has no {name} {has}: {remedy}"
        assert str(raised.value) == told


def test_pixel_loss__nothing_labelled() -> None:
    logits, inside, _ = drawn()
    values = PointValues(inside, torch.full((6,), VOID, dtype=torch.uint8))
    total_B, _ = PixelCriterion(LossConfig(kind="pixel"), 3).losses(
        logits.requires_grad_(), [values]
    )
    assert total_B.tolist() == [0.0]
    total_B.sum().backward()  # every worker brings a gradient, be it 0


def test_pixel_loss__no_object_everywhere_is_no_way_out() -> None:
    logits, inside, labels = drawn(layers=1)
    logits[..., -1] = 40.0
    values = PointValues(inside, torch.tensor(labels, dtype=torch.uint8))
    total_B, _ = PixelCriterion(LossConfig(kind="pixel"), 3).losses(logits, [values])
    torch.testing.assert_close(total_B, torch.tensor([math.log(3)]), rtol=1e-3, atol=0)
