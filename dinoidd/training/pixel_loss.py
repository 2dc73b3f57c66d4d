"""The loss of the semantic map itself, at points: no matching, the classes of a point compete.

A class's score is what inference takes the largest of: the sum over queries of the class's chance times
the mask. Scores are divided by their sum over classes, after each got a little more: were it added to
the quotient alone, a network whose queries are all no object would have no loss.
Shapes: B images, L prediction layers, Q queries, K classes, P points.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dinoidd.training.config import LossConfig
from dinoidd.training.mask_costs import sample
from dinoidd.training.observation import Observation
from dinoidd.training.points import Points
from dinoidd.training.targets import Targets

_FLOOR = 1e-3  # added to every score
_LEAST_WEIGHT = 1e-12  # where no point is labelled
_EARLIER = 0.5  # weight of the layers before the last one


class PointValues(NamedTuple):
    """An image's masks and labels at its points."""

    inside_LQP: Tensor  # 0..1
    labels_P: Tensor  # uint8; K and above is void


class PixelCriterion:
    """See `dinoidd.training.losses.Criterion`."""

    def __init__(self, config: LossConfig, classes: int) -> None:
        self._classes = classes
        self._weights_K = torch.tensor(config.class_weights or (1.0,) * classes)

    def sample(self, masks: list[Tensor], labels_SS: Tensor, points: Points) -> PointValues:
        inside = [sample(m, points.matching_P2).sigmoid() for m in masks]
        labels_P = Targets(labels_SS, self._classes).at(points.matching_P2)
        return PointValues(torch.stack(inside), labels_P)

    @torch.no_grad()
    def observe(
        self, masks: list[Tensor], labels_SS: Tensor, points: Points, exact: bool
    ) -> dict[str, np.ndarray]:
        values = self.sample(masks, labels_SS, points)
        inside = values.inside_LQP if exact else values.inside_LQP.half()
        return {"inside_LQP": inside.cpu().numpy(), "labels_P": values.labels_P.cpu().numpy()}

    def recall(self, observation: Observation) -> PointValues:
        inside_LQP, labels_P = (observation.array(name) for name in PointValues._fields)
        return PointValues(_tensor(inside_LQP), _tensor(labels_P))

    def losses(
        self, logits_BLQK1: Tensor, samples: list[PointValues]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chances = logits_BLQK1.float().softmax(-1)[..., :-1]
        images = zip(chances, samples, strict=True)
        total_B = torch.stack([self._loss(chances_LQK, values) for chances_LQK, values in images])
        return total_B, {"pixel": total_B.detach()}

    def _loss(self, chances_LQK: Tensor, values: PointValues) -> Tensor:
        """The weighted mean over labelled points, summed over layers; 0 where none is labelled."""
        device = chances_LQK.device
        self._weights_K = self._weights_K.to(device)  # once: a GPU is waited for
        inside_LQP, labels_P = (tensor.to(device) for tensor in values)
        scores_LKP = chances_LQK.transpose(1, 2) @ inside_LQP.float() + _FLOOR
        labelled_P = labels_P < self._classes
        index_P = labels_P.long().clamp(max=self._classes - 1)
        right_LP = scores_LKP.gather(1, index_P.expand(len(scores_LKP), 1, -1))[:, 0]
        weights_P = self._weights_K[index_P] * labelled_P
        costs_LP = (scores_LKP.sum(1).log() - right_LP.log()) * weights_P
        costs_L = costs_LP.sum(1) / weights_P.sum().clamp(min=_LEAST_WEIGHT)
        return costs_L[-1] + _EARLIER * costs_L[:-1].sum()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())
