"""The training of a linear head: the cross-entropy of its map at every labelled pixel.

Shapes: B images, K classes, h x w patches, S the side of the square.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.errors import ConfigError
from dinoidd.log import logger
from dinoidd.models import Segmenter, SegmenterConfig
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import TrainConfig
from dinoidd.training.step import Losses, NetworkPass

_LEAST_WEIGHT = 1e-12  # where no pixel is labelled


def for_head(config: TrainConfig, model: SegmenterConfig, asked: TrainConfig) -> TrainConfig:
    """The configuration as the model's head takes it: a linear one has no queries, so there is nothing
    to match and nothing to cache.

    Args:
        asked: what the user wrote, where `config` may have defaults filled in.

    Raises:
        ConfigError: a cache was asked for.
    """
    if model.head != "linear":
        return config
    if asked.cached:
        raise ConfigError(
            "cached=true: a linear head has no queries that could be kept; leave it out"
        )
    if config.loss.kind != "pixel":
        logger.info(
            "the head is linear: its loss is the cross-entropy of its map (loss.kind=pixel)"
        )
    return replace(config, cached=False, loss=replace(config.loss, kind="pixel"))


class LinearLosses(nn.Module):
    """The network and the loss, on images; see `dinoidd.training.step.ImageLosses`."""

    def __init__(self, model: Segmenter, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._device = device
        self._forward = NetworkPass(model, config, device)
        classes = model.config.classes
        self._weights_K = torch.tensor(config.loss.class_weights or (1.0,) * classes, device=device)

    def forward(self, batch: ImageBatch, *, validation: bool = False) -> Losses:
        labels_BSS = torch.from_numpy(batch.labels_BSS).to(self._device)  # before a GPU is busy
        (output,) = self._forward(batch.images_BSS3)
        maps_BKhw = output.class_logits
        pairs = zip(maps_BKhw, labels_BSS, strict=True)
        total_B = torch.stack([map_loss(m, labels, self._weights_K) for m, labels in pairs])
        kept = maps_BKhw.detach()
        return Losses(total_B, {"pixel": total_B.detach()}, kept[:, :0], [], kept)


def map_loss(logits_Khw: Tensor, labels_SS: Tensor, weights_K: Tensor) -> Tensor:
    """The weighted mean over labelled pixels, at the labels' size; 0 where none is labelled.

    `labels_SS` holds uint8 class ids; K and above are void.
    """
    size, void = labels_SS.shape, len(weights_K)
    logits = F.interpolate(
        logits_Khw[None].float(), size=size, mode="bilinear", align_corners=False
    )
    wanted_SS = labels_SS.long().clamp(max=void)
    costs_SS = F.cross_entropy(logits, wanted_SS[None], ignore_index=void, reduction="none")[0]
    weight_SS = F.pad(weights_K, (0, 1))[wanted_SS]
    return (costs_SS * weight_SS).sum() / weight_SS.sum().clamp(min=_LEAST_WEIGHT)
