"""What a class weighs in the loss: rare ones more, so that they are learned at all."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dinoidd.errors import ConfigError
from dinoidd.training.config import LossConfig


def weighted(loss: LossConfig, pixels: Mapping[int, int], classes: int) -> LossConfig:
    """The same loss with its class weights decided.

    A class weighs its share of the labelled pixels to the power of -class_balance, times a factor that
    makes the mean over these pixels 1. A class that was not seen weighs as much as the rarest seen.

    Args:
        pixels: of each class in the training labels that were looked at.

    Raises:
        ConfigError: weights were given, for another number of classes.
    """
    if loss.class_weights is not None and len(loss.class_weights) != classes:
        raise ConfigError(
            f"loss.class_weights has {len(loss.class_weights)} numbers, the class table {classes} "
            "classes: give one for each, or leave them out and set loss.class_balance"
        )
    if loss.class_weights is not None or not loss.class_balance:
        return loss
    counts_K = np.array([pixels.get(k, 0) for k in range(classes)], np.float64)
    counts_K = np.maximum(counts_K, counts_K[counts_K > 0].min(initial=counts_K.max()))
    weights_K = (counts_K / counts_K.sum()) ** -loss.class_balance
    weights_K *= counts_K.sum() / (counts_K @ weights_K)
    return replace(loss, class_weights=tuple(weights_K.round(4).tolist()))
