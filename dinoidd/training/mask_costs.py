"""What a mask costs against a class's, at points: binary cross-entropy and dice (arXiv 2112.01527).

Shapes: N masks of h x w logits, P points, G classes of the image. Everything is float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.training.points import Points
from dinoidd.training.targets import Targets

_SMOOTHING = 1.0  # of dice


def sample(masks_Nhw: Tensor, points_P2: Tensor) -> Tensor:
    """Logits [N, P] at points that all masks share, bilinear, zeros outside."""
    grid = (2 * points_P2 - 1)[None, None]
    sampled = F.grid_sample(masks_Nhw.float()[None], grid, align_corners=False)
    return sampled[0, :, 0]


def sample_own(masks_Nhw: Tensor, points_NP2: Tensor) -> Tensor:
    """The same at each mask's own points."""
    grid = (2 * points_NP2 - 1)[:, None]
    return F.grid_sample(masks_Nhw.float()[:, None], grid, align_corners=False)[:, 0, 0]


def mask_costs(values_NP: Tensor, inside_NP: Tensor) -> tuple[Tensor, Tensor]:
    """Each mask against its own target (1.0 inside, 0.0 outside): cross-entropy [N], dice [N]."""
    return _costs(values_NP, F.softplus(values_NP), values_NP.sigmoid(), inside_NP)


def _costs(
    values_NP: Tensor, outside_NP: Tensor, soft_NP: Tensor, inside_NP: Tensor
) -> tuple[Tensor, Tensor]:
    """`outside_NP` is the cross-entropy of being outside, `soft_NP` the chance of being inside."""
    cross_entropy = (outside_NP - values_NP * inside_NP).mean(-1)
    overlap = 2 * (soft_NP * inside_NP).sum(-1) + _SMOOTHING
    dice = 1 - overlap / (soft_NP.sum(-1) + inside_NP.sum(-1) + _SMOOTHING)
    return cross_entropy, dice


def shared_costs(values_NP: Tensor, inside_GP: Tensor) -> tuple[Tensor, Tensor]:
    """Every mask against every target at shared points: cross-entropy and dice, [N, G] each."""
    agreement = values_NP @ inside_GP.T / values_NP.shape[1]
    soft = values_NP.sigmoid()
    overlap = 2 * (soft @ inside_GP.T) + _SMOOTHING
    total = soft.sum(-1)[:, None] + inside_GP.sum(-1) + _SMOOTHING
    return F.softplus(values_NP).mean(-1)[:, None] - agreement, 1 - overlap / total


@torch.no_grad()
def matching_costs(masks_Nhw: Tensor, targets: Targets, points: Points) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice [N, G] of every pair at the matching points."""
    inside_GP = (targets.at(points.matching_P2) == targets.classes_G[:, None]).float()
    return shared_costs(sample(masks_Nhw, points.matching_P2), inside_GP)


def loss_points(
    masks_Nhw: Tensor, targets: Targets, points: Points, uncertain: int
) -> tuple[Tensor, Tensor]:
    """Each mask's logits at its own points of the loss, with their gradient, and the labels there.

    The points are the `uncertain` candidates of the smallest |logit|, and the uniform ones.
    """
    with torch.no_grad():
        distance = sample(masks_Nhw, points.candidates_N2).abs_()
        chosen = distance.topk(uncertain, largest=False, sorted=False).indices
    fixed = points.uniform_U2.expand(len(masks_Nhw), -1, -1)
    points_NP2 = torch.cat([points.candidates_N2[chosen], fixed], dim=1)
    return sample_own(masks_Nhw, points_NP2), targets.at(points_NP2)


@torch.no_grad()
def loss_costs(
    masks_Nhw: Tensor, targets: Targets, points: Points, uncertain: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice [N, G] of every pair at each mask's own points of the loss."""
    values_NP, labels_NP = loss_points(masks_Nhw, targets, points, uncertain)
    known = values_NP, F.softplus(values_NP), values_NP.sigmoid()  # the same for all classes
    pairs = [_costs(*known, (labels_NP == c).float()) for c in targets.classes_G]
    if not pairs:
        return values_NP.new_zeros(len(values_NP), 0), values_NP.new_zeros(len(values_NP), 0)
    cross_entropy, dice = zip(*pairs, strict=True)
    return torch.stack(cross_entropy, -1), torch.stack(dice, -1)
