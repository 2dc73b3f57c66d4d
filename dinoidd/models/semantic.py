"""From queries to a class for every pixel.

Shapes: B images, Q queries, K classes, h x w mask size, H x W size asked for.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.models.query_decoder import QueryOutput

# Pixels whose K probabilities are held at once at the original size: 26 classes take 27 MB.
_CHUNK_PIXELS = 1 << 18


@dataclass
class ImageClasses:
    """One image's answer: class ids [H, W] uint8, and means over its pixels (0..1)."""

    classes: Tensor
    confidence: float
    entropy: float
    margin: float


def class_scores(output: QueryOutput, size: tuple[int, int]) -> Tensor:
    """Class scores [B, K, *size] float32: softmax of classes times sigmoid of the resized masks."""
    assert output.mask_logits is not None
    masks = F.interpolate(
        output.mask_logits.float(), size=size, mode="bilinear", align_corners=False
    )
    classes = output.class_logits.float().softmax(-1)[..., :-1]
    return torch.einsum("bqk,bqhw->bkhw", classes, masks.sigmoid())


def resize_argmax(scores_KHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Class ids [*size] uint8 of scores resized bilinearly, without holding all of them resized.

    Columns are resized first, then rows in chunks: bilinear resizing is separable.
    """
    K, rows, _ = scores_KHW.shape
    height, width = size
    wide = F.interpolate(
        scores_KHW[None], size=(rows, width), mode="bilinear", align_corners=False
    )[0]
    above, below, weight = _row_neighbours(rows, height, scores_KHW.device)
    classes = torch.empty(size, dtype=torch.uint8, device=scores_KHW.device)
    step = max(1, _CHUNK_PIXELS // width)
    for start in range(0, height, step):
        part = slice(start, start + step)
        mixed = torch.lerp(wide[:, above[part]], wide[:, below[part]], weight[part, None])
        classes[part] = mixed.argmax(0).to(torch.uint8)
    return classes


def _row_neighbours(rows: int, height: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `height` rows: the two source rows and the weight of the second."""
    centres = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (rows / height)
    source = (centres - 0.5).clamp(min=0)
    above = source.long().clamp(max=rows - 1)
    below = (above + 1).clamp(max=rows - 1)
    return above, below, source - above


def certainty(scores_BKHW: Tensor) -> Tensor:
    """Confidence, normalised entropy and top-1 minus top-2, as means over pixels: [B, 3] float32.

    Scores are divided by their sum over classes first, since queries may overlap or leave a gap.
    """
    total = scores_BKHW.sum(1, keepdim=True).clamp(min=1e-12)
    p = scores_BKHW / total
    K = p.shape[1]
    top = p.topk(min(2, K), dim=1).values
    second = top[:, 1] if K > 1 else torch.zeros_like(top[:, 0])
    entropy = torch.special.entr(p).sum(1) / torch.log(torch.tensor(float(max(K, 2))))
    maps = torch.stack([top[:, 0], entropy, top[:, 0] - second], dim=1)
    return maps.mean(dim=(2, 3)).clamp(0, 1)
