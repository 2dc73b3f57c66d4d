"""From a batch to each image's loss: through the network, or from what a cache holds.

Shapes: B images, L prediction layers, Q queries, K classes, C decoder width, S side of the square.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dinoidd.models import Segmenter
from dinoidd.models.exact import exact_float32
from dinoidd.models.pixels import PixelNorm
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import TrainConfig
from dinoidd.training.head import ClassifierHead
from dinoidd.training.losses import make_criterion
from dinoidd.training.observation import Observation
from dinoidd.training.points import Points, draw_points
from dinoidd.training.precision import autocast, network_dtype


class Losses(NamedTuple):
    """Each image's loss, normalised by that image alone, float32; and the last layer's answer."""

    total_B: Tensor
    parts: dict[str, Tensor]  # [B] each, detached; they sum up to the total
    logits_BQK1: Tensor  # detached
    masks: list[Tensor]  # [Q, h, w] each, detached; empty where the cache has none
    maps_BKhw: Tensor | None = None  # a linear head's logits, detached; in place of the two above


class ImageLosses(nn.Module):
    """The network and the loss, on images."""

    def __init__(self, model: Segmenter, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._config, self._device = config, device
        self._criterion = make_criterion(config, model.config.classes)
        self._forward = NetworkPass(model, config, device)

    def forward(self, batch: ImageBatch, *, validation: bool = False) -> Losses:
        # Before the network: a copy to a GPU waits for all that the GPU was given until then.
        labels_BSS = torch.from_numpy(batch.labels_BSS).to(self._device)
        points_B = points_of(batch, self._config, validation, self._device)
        outputs = self._forward(batch.images_BSS3)
        samples = [
            self._criterion.sample([o.mask_logits[i] for o in outputs], labels_SS, points)
            for i, (labels_SS, points) in enumerate(zip(labels_BSS, points_B, strict=True))
        ]
        logits_BLQK1 = torch.stack([o.class_logits for o in outputs], dim=1)
        total_B, parts = self._criterion.losses(logits_BLQK1, samples)
        masks = list(outputs[-1].mask_logits.detach())
        return Losses(total_B, parts, outputs[-1].class_logits.detach(), masks)


class CachedLosses(nn.Module):
    """The classifier and the loss, on observations."""

    def __init__(self, head: ClassifierHead, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.model = head
        self._device, self._dtype = device, network_dtype(config, device)
        self._criterion = make_criterion(config, head.classes)

    def forward(self, batch: list[Observation], *, validation: bool = False) -> Losses:
        queries = torch.stack([tensor(o.queries_LQC) for o in batch]).to(self._device)
        with autocast(self._dtype, self._device):
            logits_BLQK1 = self.model(queries)
        samples = [self._criterion.recall(o) for o in batch]
        total_B, parts = self._criterion.losses(logits_BLQK1, samples)
        masks = [o.mask_logits_Qhw for o in batch if validation and o.mask_logits_Qhw is not None]
        on_device = [tensor(m).to(self._device) for m in masks]
        return Losses(total_B, parts, logits_BLQK1[:, -1].detach(), on_device)


class NetworkPass:
    """Images through the network, in the configuration's precision and number of layers."""

    def __init__(self, model: Segmenter, config: TrainConfig, device: torch.device) -> None:
        self._model, self._device = model, device
        self._every_layer = config.deep_supervision
        self._dtype = network_dtype(config, device)
        exact_float32(self._dtype)
        self._normalise = PixelNorm(model.config, device)

    def __call__(self, images_BSS3: np.ndarray) -> list[Any]:
        """The last layer's QueryOutput, and before it those of the others that have a loss; of a linear
        head its one PatchOutput."""
        images = torch.from_numpy(images_BSS3).to(self._device)
        with autocast(self._dtype, self._device):
            return self._model(self._normalise(images), self._every_layer)


def points_of(
    batch: ImageBatch, config: TrainConfig, validation: bool, device: torch.device
) -> list[Points]:
    """Each image's points; where a cache would hold one view of it, they are that view's every time."""
    fixed = validation or (config.trained == "classifier" and not config.augmentation.enabled)
    views = [0 if fixed else view for view in batch.views]
    drawn = (
        draw_points(config.loss, config.seed, *named)
        for named in zip(batch.keys, views, strict=True)
    )
    return [points.to(device) for points in drawn]


def tensor(array: np.ndarray) -> Tensor:
    """An observation's array as a tensor; uint16 holds bfloat16's bits."""
    owned = array if array.flags.writeable else array.copy()
    if owned.dtype == np.uint16:
        return torch.from_numpy(owned.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(owned)
