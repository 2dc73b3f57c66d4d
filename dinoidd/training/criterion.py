"""Mask2Former's set loss (arXiv 2112.01527): queries are matched to classes, then held against them.

A query that is matched learns its class and its mask; the others learn to be no object. Everything is
float32 and normalised by the image alone.
Shapes: B images, L prediction layers, Q queries, K classes, G classes present in an image, M matched
pairs over the layers.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.training.config import LossConfig
from dinoidd.training.mask_costs import loss_costs, loss_points, mask_costs, matching_costs
from dinoidd.training.observation import Observation
from dinoidd.training.points import Points, uncertain_points
from dinoidd.training.targets import Targets


class Match(NamedTuple):
    """The matched pairs of all layers: indices, int64 [M] each."""

    layer_M: np.ndarray
    query_M: np.ndarray
    target_M: np.ndarray  # index into the image's classes


class Pairs(Protocol):
    """An image's masks against its classes, before it is known who is matched with whom."""

    classes_G: np.ndarray
    match_bce_LQG: np.ndarray  # costs at the matching points
    match_dice_LQG: np.ndarray

    def matched(self, match: Match) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy and dice [M] of the matched pairs at the points of the loss."""
        ...


class KnownPairs:
    """Pairs of a cache: what each would cost is known, and no gradient is needed."""

    def __init__(self, observation: Observation) -> None:
        self.classes_G, self.match_bce_LQG, self.match_dice_LQG, self._bce_LQG, self._dice_LQG = (
            observation.array(name) for name in _ARRAYS
        )

    def matched(self, match: Match) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._bce_LQG[match]), torch.from_numpy(self._dice_LQG[match])


class SampledPairs:
    """Pairs of masks just predicted: matched ones are sampled again, with their gradient."""

    def __init__(
        self, masks: list[Tensor], targets: Targets, points: Points, uncertain: int
    ) -> None:
        self._masks, self._targets, self._points = masks, targets, points
        self._uncertain = uncertain
        self.classes_G = targets.classes_G.byte().cpu().numpy()
        bce, dice = _stacked([matching_costs(m, targets, points) for m in masks])
        self.match_bce_LQG, self.match_dice_LQG = bce, dice

    def matched(self, match: Match) -> tuple[Tensor, Tensor]:
        device = self._masks[0].device
        layer_M, query_M, target_M = (torch.from_numpy(index).to(device) for index in match)
        # An image without classes has no pair; its empty gradient still reaches the masks, as every
        # worker has to bring one for each parameter.
        masks_Mhw = torch.cat([m[query_M[layer_M == i]] for i, m in enumerate(self._masks)])
        values_MP, labels_MP = loss_points(masks_Mhw, self._targets, self._points, self._uncertain)
        inside_MP = (labels_MP == self._targets.classes_G[target_M][:, None]).float()
        return mask_costs(values_MP, inside_MP)


class SetCriterion:
    """See `dinoidd.training.losses.Criterion`."""

    def __init__(self, config: LossConfig, classes: int) -> None:
        self._config, self._classes = config, classes
        self._uncertain = uncertain_points(config)

    def sample(self, masks: list[Tensor], labels_SS: Tensor, points: Points) -> Pairs:
        return SampledPairs(masks, Targets(labels_SS, self._classes), points, self._uncertain)

    def observe(
        self, masks: list[Tensor], labels_SS: Tensor, points: Points, exact: bool
    ) -> dict[str, np.ndarray]:
        targets = Targets(labels_SS, self._classes)
        matching = _stacked([matching_costs(m, targets, points) for m in masks])
        loss = _stacked([loss_costs(m, targets, points, self._uncertain) for m in masks])
        classes_G = targets.classes_G.byte().cpu().numpy()
        return dict(zip(_ARRAYS, (classes_G, *matching, *loss), strict=True))

    def recall(self, observation: Observation) -> Pairs:
        return KnownPairs(observation)

    def losses(
        self, logits_BLQK1: Tensor, samples: list[Pairs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = logits_BLQK1.float()
        chances = logits.detach().softmax(-1).cpu().numpy()
        matches = [self.match(p, pairs) for p, pairs in zip(chances, samples, strict=True)]
        masks = [
            self._mask_losses(pairs, match) for pairs, match in zip(samples, matches, strict=True)
        ]
        bce, dice = zip(*masks, strict=True)
        classified = [
            self._wanted(pairs, match, logits.shape[1:3])
            for pairs, match in zip(samples, matches, strict=True)
        ]
        weighted = {
            "class": self._config.class_weight * self._class_losses(logits, np.stack(classified)),
            "mask": self._config.mask_weight * torch.stack(bce).to(logits.device),
            "dice": self._config.dice_weight * torch.stack(dice).to(logits.device),
        }
        total_B = weighted["class"] + weighted["mask"] + weighted["dice"]
        return total_B, {name: loss.detach() for name, loss in weighted.items()}

    def match(self, chances_LQK1: np.ndarray, pairs: Pairs) -> Match:
        """The cheapest assignment of queries to the image's classes, in every layer."""
        # half a second of importing, which processes that only look at images do not need
        from scipy.optimize import linear_sum_assignment

        weights = self._config
        costs_LQG = weights.mask_weight * pairs.match_bce_LQG
        costs_LQG += weights.dice_weight * pairs.match_dice_LQG
        costs_LQG -= weights.class_weight * chances_LQK1[:, :, pairs.classes_G]
        # a loss of NaN is told by whoever sums it up; the solver would stop without saying where
        np.nan_to_num(costs_LQG, copy=False, nan=_FORBIDDEN, posinf=_FORBIDDEN, neginf=_FORBIDDEN)
        assigned = [linear_sum_assignment(cost) for cost in costs_LQG]
        layers = [np.full(len(query), layer) for layer, (query, _) in enumerate(assigned)]
        queries, targets = zip(*assigned, strict=True)
        return Match(*(np.concatenate(part) for part in (layers, queries, targets)))

    def _mask_losses(self, pairs: Pairs, match: Match) -> tuple[Tensor, Tensor]:
        masks = max(1, len(pairs.classes_G))
        bce_M, dice_M = pairs.matched(match)
        return bce_M.sum() / masks, dice_M.sum() / masks

    def _wanted(self, pairs: Pairs, match: Match, shape: tuple[int, ...]) -> np.ndarray:
        """The class that each query should have, int64 [L, Q]; K is no object."""
        wanted_LQ = np.full(shape, self._classes)
        wanted_LQ[match.layer_M, match.query_M] = pairs.classes_G[match.target_M]
        return wanted_LQ

    def _class_losses(self, logits_BLQK1: Tensor, wanted_BLQ: np.ndarray) -> Tensor:
        """Weighted cross-entropy [B]: the mean over queries of each layer, summed over layers."""
        wanted = torch.from_numpy(wanted_BLQ).to(logits_BLQK1.device)
        of_classes = self._config.class_weights or (1.0,) * self._classes
        weights = logits_BLQK1.new_tensor([*of_classes, self._config.no_object_weight])
        losses = F.cross_entropy(logits_BLQK1.flatten(0, 2), wanted.flatten(), reduction="none")
        weights_BLQ = weights[wanted]
        sums_BL = (losses.view(wanted.shape) * weights_BLQ).sum(-1)
        return (sums_BL / weights_BLQ.sum(-1).clamp(min=_LEAST_WEIGHT)).sum(-1)


_ARRAYS = ("classes_G", "match_bce_LQG", "match_dice_LQG", "loss_bce_LQG", "loss_dice_LQG")
_FORBIDDEN = 1e10
_LEAST_WEIGHT = 1e-12  # where no_object_weight=0 and an image without a label leave nothing


def _stacked(layers: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    bce, dice = zip(*layers, strict=True)
    both = torch.stack([torch.stack(bce), torch.stack(dice)]).cpu().numpy()
    return both[0], both[1]
