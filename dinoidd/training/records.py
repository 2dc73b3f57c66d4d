"""What a run tells of itself: one record a step, one an epoch, and who listens."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimiser step, over all workers."""

    step: int  # from 1, over the whole run
    epoch: int  # from 1
    loss: float  # mean over the step's images
    parts: dict[str, float]  # of the loss: class, mask, dice; or pixel
    learning_rate: float
    grad_norm: float  # before clipping
    images_per_second: float  # NaN for the first step of a process: most of it is start-up
    data_wait_share: float  # of the step's time, spent waiting for its images; NaN like the rate


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One validation image, to be looked at: all [S, S]."""

    key: str
    image_SS3: np.ndarray  # uint8, RGB
    truth_SS: np.ndarray  # uint8 class ids, 255 is void
    prediction_SS: np.ndarray  # uint8 class ids


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch: training's means, and validation over the whole split."""

    epoch: int  # from 1
    step: int  # optimiser steps so far
    train_loss: float
    val_loss: float
    confusion: np.ndarray  # int64 [K + 1, K + 1], rows the ground truth, index K is void
    iou_K: np.ndarray  # float64, NaN for a class that is absent
    miou: float  # mean over the classes present, 0..1
    pixel_accuracy: float
    learning_rate: float
    seconds: float  # of training and validation
    train_seconds: float
    images_per_second: float  # of training, without a process's first step if there is another
    data_wait_share: float  # of the same time; NaN where there is no other
    peak_memory_bytes: int  # of the device; of the process where that is the CPU
    best_epoch: int  # of the best mIoU, this epoch among them
    best_miou: float
    parts: dict[str, float] = field(default_factory=dict)  # of the training loss
    pictures: list[Picture] = field(default_factory=list)


class Recorder(Protocol):
    """Whoever writes down how a run goes. Only the first worker has one that does anything."""

    def step(self, record: StepRecord) -> None:
        """After each optimiser step; cheap."""
        ...

    def epoch(self, record: EpochRecord) -> None:
        """After each epoch's validation."""
        ...

    def close(self) -> None:
        """At the end, however it comes."""
        ...
