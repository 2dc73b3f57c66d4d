"""The points of an image at which masks are compared: the same wherever they are drawn."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from dinoidd.training.config import LossConfig
from dinoidd.training.key_bytes import key_bytes


@dataclass(frozen=True)
class Points:
    """(x, y) in 0..1, uniform, float32; all queries and layers of the image share them."""

    matching_P2: Tensor  # at these queries and classes are matched; the pixel loss has them too
    candidates_N2: Tensor  # of these each mask's loss takes those where it is least certain
    uniform_U2: Tensor  # and it takes these

    def to(self, device: torch.device) -> "Points":
        """The same points on that device."""
        parts = (self.matching_P2, self.candidates_N2, self.uniform_U2)
        return Points(*(part.to(device) for part in parts))


def draw_points(loss: LossConfig, seed: int, key: str, view: int) -> Points:
    """Draw an image's points from (seed, key, view), on the CPU.

    Args:
        key: of the frame.
        view: of its augmented passes.
    """
    digest = hashlib.sha256(key_bytes(f"{seed}/{view}/{key}")).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return Points(*(torch.rand(count, 2, generator=generator) for count in point_counts(loss)))


def point_counts(loss: LossConfig) -> tuple[int, int, int]:
    """How many of each kind the loss needs; the pixel loss has no masks of its own to be uncertain of."""
    if loss.kind == "pixel":
        return loss.points, 0, 0
    return loss.points, candidate_points(loss), loss.points - uncertain_points(loss)


def uncertain_points(loss: LossConfig) -> int:
    """How many points of the loss are taken where the mask is least certain."""
    return int(loss.uncertain_share * loss.points)


def candidate_points(loss: LossConfig) -> int:
    """How many points those are chosen from."""
    return int(loss.oversample * loss.points)
