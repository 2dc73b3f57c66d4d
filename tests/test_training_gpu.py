"""Training on a GPU: its losses are a CPU's. Needs torch and numpy alone."""

import math

import numpy as np
import pytest
import torch

from dinoidd.models import preset, random_segmenter
from dinoidd.models.config import resized
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import LossConfig, OptimizerConfig, TrainConfig
from dinoidd.training.optimizer import make_optimizer, set_rates
from dinoidd.training.prepare import prepare
from dinoidd.training.step import ImageLosses

STEPS, CLASSES, IMAGES, SIZE = 20, 5, 4, 64
RATE = 2e-4
# Of losses that go from 4.1 to 0.5. AdamW's first steps are as long for a gradient of rounding alone as
# for any other: on a CPU, weights changed in the sixth digit come to 0.008, and bfloat16 to 0.024.
BOUNDS = [("float32", 0.03), ("bfloat16", 0.1)]


def patches() -> ImageBatch:
    """Images of 16-pixel patches, each in the color of its class."""
    draw = np.random.default_rng(0)
    colors = draw.integers(0, 256, (CLASSES, 3))
    classes = draw.integers(0, CLASSES, (IMAGES, SIZE // 16, SIZE // 16))
    labels = classes.repeat(16, 1).repeat(16, 2).astype(np.uint8)
    pixels = (colors[labels] + draw.integers(-20, 20, (*labels.shape, 3))).clip(0, 255)
    return ImageBatch(
        images_BSS3=pixels.astype(np.uint8),
        labels_BSS=labels,
        keys=[f"train/{i}" for i in range(IMAGES)],
        views=[0] * IMAGES,
    )


def losses_of(device: str, precision: str) -> list[float]:
    """The loss before each step of `small`, trained whole from random weights."""
    config = TrainConfig(
        data="d",
        output="o",
        preset="small",
        trained="all",
        precision=precision,
        batch_size=IMAGES,
        loss=LossConfig(kind="pixel", points=512),
        optimizer=OptimizerConfig(backbone_rate=1.0, layer_decay=1.0),
    )
    on, batch = torch.device(device), patches()
    architecture = resized(preset("small"), classes=CLASSES)
    model = prepare(random_segmenter(architecture), config, on)
    losses, optimizer = ImageLosses(model, config, on), make_optimizer(model, config.optimizer)
    found = []
    for _ in range(STEPS):
        loss = losses(batch).total_B.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        set_rates(optimizer, RATE)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.gpu
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("precision", "bound"), BOUNDS)
def test_training__on_a_gpu_as_on_a_cpu(precision: str, bound: float) -> None:
    expected, found = losses_of("cpu", "float32"), losses_of("cuda", precision)
    assert expected[-1] < expected[0] / 4  # it learns
    assert all(map(math.isfinite, found))
    assert found == pytest.approx(expected, abs=bound)
