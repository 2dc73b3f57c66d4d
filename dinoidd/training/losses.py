"""What a loss is to the rest of training.

Shapes: B images, L prediction layers, Q queries, K classes, h x w masks, S the side of the square.
"""

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from dinoidd.training.config import TrainConfig
from dinoidd.training.criterion import SetCriterion
from dinoidd.training.observation import Observation
from dinoidd.training.pixel_loss import PixelCriterion
from dinoidd.training.points import Points


class Criterion(Protocol):
    """A loss in two steps: what depends on the masks, known from the network or from a cache, and
    what is left to do once the classes are known. The second is the same for both."""

    def sample(self, masks: list[Tensor], labels_SS: Tensor, points: Points) -> Any:
        """What the loss needs of an image's masks [Q, h, w] of each layer; their gradient is kept."""
        ...

    def observe(
        self, masks: list[Tensor], labels_SS: Tensor, points: Points, exact: bool
    ) -> dict[str, np.ndarray]:
        """The same as an Observation's arrays; without `exact` some may be float16."""
        ...

    def recall(self, observation: Observation) -> Any:
        """What `sample` gave, from an observation."""
        ...

    def losses(self, logits_BLQK1: Tensor, samples: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """From class logits (last: no object) and the images' samples: each image's loss [B], normalised
        by that image alone, and its detached parts [B], that sum up to it."""
        ...


def make_criterion(config: TrainConfig, classes: int) -> Criterion:
    """The configuration's loss for that many classes."""
    if config.loss.kind == "set":
        return SetCriterion(config.loss, classes)
    return PixelCriterion(config.loss, classes)
