"""What the masks are held against: a label map, read at points.

Shapes: G classes present in the image, P points, S the side of the square.
"""

from functools import cached_property

import torch
from torch import Tensor


class Targets:
    """One image's labels: a binary mask for each class that is present. Void is in none of them."""

    def __init__(self, labels_SS: Tensor, classes: int) -> None:
        """`labels_SS` holds uint8 class ids; `classes` and above are void."""
        self._labels_SS, self._classes = labels_SS, classes

    @cached_property
    def classes_G(self) -> Tensor:  # noqa: N802
        """Ids of the classes present, int64, ascending. A GPU is waited for."""
        labels = self._labels_SS.flatten().int()
        present = torch.bincount(labels, minlength=self._classes)[: self._classes]
        return present.nonzero().flatten()

    def at(self, points_P2: Tensor) -> Tensor:
        """The label [P] uint8 of the pixel that each point lies in."""
        height, width = self._labels_SS.shape
        x = (points_P2[..., 0] * width).long().clamp(max=width - 1)
        y = (points_P2[..., 1] * height).long().clamp(max=height - 1)
        return self._labels_SS[y, x]
