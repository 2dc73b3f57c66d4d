"""Class scores of one image at a size, from either head's output.

Shapes: K classes, h x w patches.
"""

import torch.nn.functional as F
from torch import Tensor

from dinoidd.models.linear import PatchOutput
from dinoidd.models.query_decoder import QueryOutput
from dinoidd.models.semantic import class_scores


def image_scores(output: QueryOutput | PatchOutput, index: int, size: tuple[int, int]) -> Tensor:
    """Scores [K, *size] float32, 0..1, of the batch's image `index`. A linear head's sum to 1."""
    if isinstance(output, PatchOutput):
        return patch_scores(output.class_logits[index], size)
    return class_scores(output.class_logits[index], output.mask_logits[index], size)


def patch_scores(logits_Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """Softmax over classes of logits resized bilinearly, [K, *size] float32."""
    logits = F.interpolate(
        logits_Khw[None].float(), size=size, mode="bilinear", align_corners=False
    )
    return logits[0].softmax(0)
