"""The set loss against transformers' Mask2Former, and where it has to be special."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_runs import CLASSES, LOSS, SIZE, VOID, drawn_batch
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from dinoidd.training.config import LossConfig
from dinoidd.training.criterion import SetCriterion
from dinoidd.training.observation import Observation
from dinoidd.training.points import Points, draw_points

QUERIES, LAYERS = 9, 3


def snapped_points(loss: LossConfig) -> Points:
    """Points at the label map's pixel centres, where bilinear and nearest reading agree."""
    drawn = draw_points(loss, 0, "train/0", 0)
    parts = (drawn.matching_P2, drawn.candidates_N2, drawn.uniform_U2)
    return Points(*(((part * SIZE).floor() + 0.5) / SIZE for part in parts))


def drawn_outputs(seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Class logits [1, L, Q, K + 1], and mask logits of each layer, all wanting a gradient."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, LAYERS, QUERIES, CLASSES + 1, generator=generator)
    masks = [3 * torch.randn(QUERIES, 16, 16, generator=generator) for _ in range(LAYERS)]
    return logits.requires_grad_(), [m.requires_grad_() for m in masks]


def transformers_losses(
    loss: LossConfig,
    logits_BLQK1: Tensor,
    masks: list[Tensor],
    labels_SS: Tensor,
    points: Points,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Tensor]:
    """Their losses, weighted and summed over layers, at our points."""
    parts = (points.matching_P2, points.candidates_N2, points.uniform_U2)
    by_count = {len(part): part for part in parts}

    def rand(rows: int, count: int, _: int, **where: Any) -> Tensor:
        return by_count[count].repeat(rows, 1, 1)

    config = Mask2FormerConfig(
        num_labels=CLASSES,
        train_num_points=loss.points,
        oversample_ratio=loss.oversample,
        importance_sample_ratio=loss.uncertain_share,
    )
    theirs = Mask2FormerLoss(config, {})
    classes = [c for c in labels_SS.unique() if c < CLASSES]
    inside = torch.stack([(labels_SS == c).float() for c in classes])
    monkeypatch.setattr(torch, "rand", rand)
    sums = {"class": 0.0, "mask": 0.0, "dice": 0.0}
    for layer, layer_masks in enumerate(masks):
        ids = torch.tensor([int(c) for c in classes])
        found = theirs(layer_masks[None], logits_BLQK1[:, layer], [inside], [ids])
        sums["class"] += 2 * found["loss_cross_entropy"]
        sums["mask"] += 5 * found["loss_mask"]
        sums["dice"] += 5 * found["loss_dice"]
    monkeypatch.undo()
    return sums


def test_set_criterion__equals_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    labels_SS = torch.from_numpy(drawn_batch(1).labels_BSS[0])
    points, (logits, masks) = snapped_points(LOSS), drawn_outputs()
    criterion = SetCriterion(LOSS, CLASSES)
    total_B, parts = criterion.losses(logits, [criterion.sample(masks, labels_SS, points)])
    ours = torch.autograd.grad(total_B.sum(), [logits, *masks])
    expected = transformers_losses(LOSS, logits, masks, labels_SS, points, monkeypatch)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name][0], value.detach())
    theirs = torch.autograd.grad(sum(expected.values()), [logits, *masks])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_set_criterion__observation_gives_the_same_losses() -> None:
    labels_SS = torch.from_numpy(drawn_batch(1).labels_BSS[0])
    points, (logits, masks) = draw_points(LOSS, 0, "train/0", 0), drawn_outputs()
    criterion = SetCriterion(LOSS, CLASSES)
    arrays = criterion.observe(masks, labels_SS, points, exact=True)
    observation = Observation(key="train/0", view=0, queries_LQC=np.zeros(0), **arrays)
    assert observation.match_bce_LQG.shape == (LAYERS, QUERIES, len(observation.classes_G))
    _, sampled = criterion.losses(logits, [criterion.sample(masks, labels_SS, points)])
    _, recalled = criterion.losses(logits, [criterion.recall(observation)])
    for name, value in sampled.items():
        torch.testing.assert_close(recalled[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("labels", ["void", "one class"])
def test_set_criterion__few_labels(labels: str) -> None:
    labels_SS = torch.full((SIZE, SIZE), VOID, dtype=torch.uint8)
    if labels == "one class":
        labels_SS[:3] = 2
    points, (logits, masks) = draw_points(LOSS, 0, "a", 0), drawn_outputs()
    criterion = SetCriterion(LOSS, CLASSES)
    total_B, parts = criterion.losses(logits, [criterion.sample(masks, labels_SS, points)])
    gradients = torch.autograd.grad(total_B.sum(), [logits, *masks])
    assert all(g.isfinite().all() for g in gradients)
    touched = [int((m.abs().sum((1, 2)) > 0).sum()) for m in gradients[1:]]
    assert touched == [int(labels == "one class")] * LAYERS
    assert (parts["mask"] > 0) == (labels == "one class")
    assert parts["class"] > 0


def test_set_criterion__more_classes_than_queries() -> None:
    labels_SS = torch.from_numpy(drawn_batch(1).labels_BSS[0])
    points, (logits, masks) = draw_points(LOSS, 0, "a", 0), drawn_outputs()
    few = [m[:3] for m in masks]
    criterion = SetCriterion(LOSS, CLASSES)
    pairs = criterion.sample(few, labels_SS, points)
    chances = logits[0, :, :3].detach().softmax(-1).numpy()
    match = criterion.match(chances, pairs)
    assert match.query_M.tolist() == [0, 1, 2] * LAYERS
    assert len(pairs.classes_G) > 3
    total_B, _ = criterion.losses(logits[:, :, :3], [pairs])
    assert total_B.isfinite().all()


def test_set_criterion__an_image_does_not_change_anothers_loss() -> None:
    batch = drawn_batch(2)
    criterion = SetCriterion(LOSS, CLASSES)
    outputs = [drawn_outputs(seed) for seed in (0, 1)]
    samples = [
        criterion.sample(masks, torch.from_numpy(label), draw_points(LOSS, 0, key, 0))
        for (_, masks), label, key in zip(outputs, batch.labels_BSS, batch.keys, strict=True)
    ]
    together, _ = criterion.losses(torch.cat([logits for logits, _ in outputs]), samples)
    for i, (logits, _) in enumerate(outputs):
        alone, _ = criterion.losses(logits, [samples[i]])
        torch.testing.assert_close(alone[0], together[i])
