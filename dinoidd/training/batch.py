"""What a worker gets: batches of images and labels, epoch after epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Augmented images at the model's square, B of them."""

    images_BSS3: np.ndarray  # uint8, RGB
    labels_BSS: np.ndarray  # uint8, class ids; 255 is void
    keys: list[str]  # of the frames, like train/0/001; they seed the sampled points
    views: list[int]  # which augmented pass: the epoch, or 0..views_per_image-1 in a cache


BatchT_co = TypeVar("BatchT_co", covariant=True)


class Feed(Protocol[BatchT_co]):
    """One worker's share of the data, in an order that the configuration's seed fixes.

    A step's batch_size images are the same whatever the number of workers and micro-batches is.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps; the remainder of the split is left out, another one each epoch."""
        ...

    def train(self, first_epoch: int, epochs: int) -> Iterator[BatchT_co]:
        """Micro-batches of forward_batch images; batch_size / (workers * forward_batch) make a step.

        `epochs` of them, the first of which is `first_epoch`, counted from 1.
        """
        ...

    def validation(self) -> Iterator[BatchT_co]:
        """This worker's share of the validation split, once, in order."""
        ...
