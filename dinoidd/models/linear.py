"""The linear head that DINOv3's features are judged by (arXiv 2508.10104): BatchNorm and one matrix.

Shapes: B images, N patches, D embed_dim, K classes, h x w patches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_LAYERS = 4  # taken of the backbone
_START_STD = 0.01  # of the matrix


@dataclass
class PatchOutput:
    """Class logits [B, K, h, w] of the patches; there is no column for no object."""

    class_logits: Tensor


class LinearHead(nn.Module):
    """Class logits of each patch, from the four layers' tokens side by side."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(_LAYERS * dim)
        self.classifier = nn.Conv2d(_LAYERS * dim, classes, 1)
        if not self.classifier.weight.is_meta:
            nn.init.normal_(self.classifier.weight, std=_START_STD)
            nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, layers_BND: list[Tensor], grid: tuple[int, int]) -> PatchOutput:
        """`grid` is how many rows and columns of patches there are."""
        features = torch.cat(layers_BND, dim=2).transpose(1, 2).unflatten(2, grid)
        return PatchOutput(class_logits=self.classifier(self.norm(features)))
