"""How good the model is on the validation split: one confusion matrix, one mean loss."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dinoidd.metrics import confusion_matrix, iou, mean_of_present, pixel_accuracy, tally
from dinoidd.models.argmax import argmax_classes
from dinoidd.models.scores import patch_scores
from dinoidd.models.semantic import class_scores
from dinoidd.training.batch import ImageBatch
from dinoidd.training.observation import Observation
from dinoidd.training.records import Picture
from dinoidd.training.sharding import is_sharded, together
from dinoidd.training.step import Losses
from dinoidd.training.world import World

PICTURES = 4  # of the first worker's first images


@dataclass(kw_only=True)
class Validation:
    """Figures of the whole split, the same on every worker; pictures of this worker's share."""

    loss: float
    confusion: np.ndarray  # int64 [K + 1, K + 1]
    pictures: list[Picture] = field(default_factory=list)

    @property
    def ious(self) -> np.ndarray:
        """float64 [K]; NaN for a class that is absent."""
        return iou(self._tally)

    @property
    def miou(self) -> float:
        """Over the classes that are present; NaN where none is."""
        return float(mean_of_present(self.ious))

    @property
    def pixel_accuracy(self) -> float:
        return float(pixel_accuracy(self._tally))

    @property
    def _tally(self) -> np.ndarray:
        return tally(self.confusion, len(self.confusion) - 1)


@torch.no_grad()
def validate(module: nn.Module, batches: Iterable[Any], classes: int, world: World) -> Validation:
    """Judge the model at its own square; `module` gives each batch's Losses."""
    module.eval()
    sharded = is_sharded(module)
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    sums = np.zeros(2)  # of losses, of images
    pictures: list[Picture] = []
    judge = Judge()
    share = iter(batches)
    for batch, counts in together(share, world) if sharded else ((b, True) for b in share):
        losses: Losses = module(batch, validation=True)
        if not counts:
            continue
        sums += float(losses.total_B.sum()), len(losses.total_B)
        truths = _labels(batch)
        predictions = judge.predictions(losses, truths)
        for truth, prediction in zip(truths, predictions, strict=True):
            confusion += confusion_matrix(truth, prediction, classes)
        if len(pictures) < PICTURES:
            pictures += _pictures(batch, truths, predictions)[: PICTURES - len(pictures)]
    total, images = world.sum(sums)
    return Validation(
        loss=float(total / max(1, images)), confusion=world.sum(confusion), pictures=pictures
    )


class Judge:
    """Takes the classes of images as inference does, in memory that is kept from image to image."""

    def __init__(self) -> None:
        self._room_QSS: Tensor | None = None

    def predictions(self, losses: Losses, truths: list[np.ndarray]) -> list[np.ndarray]:
        """Classes of each image, [S, S] uint8."""
        if losses.maps_BKhw is not None:
            maps = zip(losses.maps_BKhw, truths, strict=True)
            return [_classes(patch_scores(m, truth.shape)) for m, truth in maps]
        images = zip(losses.logits_BQK1, losses.masks, truths, strict=True)
        return [
            _classes(class_scores(logits, masks, truth.shape, self._room(masks, truth.shape)))
            for logits, masks, truth in images
        ]

    def _room(self, masks_Qhw: Tensor, size: tuple[int, int]) -> Tensor | None:
        """On a CPU; a GPU's allocator keeps memory by itself."""
        if masks_Qhw.device.type != "cpu":
            return None
        shape = (len(masks_Qhw), *size)
        if self._room_QSS is None or self._room_QSS.shape != shape:
            self._room_QSS = torch.empty(shape)
        return self._room_QSS


def _classes(scores_KSS: Tensor) -> np.ndarray:
    return argmax_classes(scores_KSS).cpu().numpy()


def _labels(batch: ImageBatch | list[Observation]) -> list[np.ndarray]:
    if isinstance(batch, ImageBatch):
        return list(batch.labels_BSS)
    labels = [observation.label_SS for observation in batch]
    return [label for label in labels if label is not None]


def _pictures(
    batch: ImageBatch | list[Observation], truths: list[np.ndarray], predictions: list[np.ndarray]
) -> list[Picture]:
    """Those of the batch whose image is at hand."""
    if isinstance(batch, ImageBatch):
        keys, images = batch.keys, list(batch.images_BSS3)
    else:
        keys, images = [o.key for o in batch], [o.image_SS3 for o in batch]
    shown = zip(keys, images, truths, predictions, strict=True)
    return [
        Picture(key=key, image_SS3=image, truth_SS=truth, prediction_SS=prediction)
        for key, image, truth, prediction in shown
        if image is not None
    ]
