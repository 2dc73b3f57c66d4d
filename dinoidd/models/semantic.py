"""From queries to a class for every pixel, one image at a time.

An image's maps at full size are many times larger than the network's own (100 queries at 512x512 are
105 MB), so a batch is not held at once; on the CPU that also keeps them in the cache.
Shapes: Q queries, K classes, h x w masks, H x W size asked for.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_SCORE = 1e-30  # less is none: near the end of float32's range


@dataclass(frozen=True)
class Certainty:
    """Means over an image's pixels, each 0..1: the highest class probability, the normalised entropy,
    and the highest less the second-highest probability."""

    confidence: float
    entropy: float
    margin: float


def class_scores(
    logits_QK1: Tensor,
    masks_Qhw: Tensor,
    size: tuple[int, int],
    room_QHW: Tensor | None = None,
) -> Tensor:
    """Class scores [K, *size] float32: softmax of classes times sigmoid of the resized masks.

    The last column of the logits is no object and is left out (Mask2Former, arXiv 2112.01527).

    Args:
        room_QHW: float32 memory of that size for the resized masks, where no gradient is wanted. To a CPU
            new memory for each image costs more than resizing does.
    """
    masks = masks_Qhw.float()
    resized = _resize(masks, size) if room_QHW is None else _resize_into(room_QHW, masks)
    inside_QHW = resized.sigmoid_()
    classes_QK = logits_QK1.float().softmax(-1)[:, :-1]
    return (classes_QK.T @ inside_QHW.flatten(1)).unflatten(1, size)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def _resize_into(room: Tensor, maps: Tensor) -> Tensor:
    """The same numbers, written to `room`."""
    torch.ops.aten.upsample_bilinear2d.out(maps[None], room.shape[1:], False, out=room[None])
    return room


def certainty(scores_KHW: Tensor) -> Tensor:
    """The three numbers of `Certainty`, [3] float32, of scores at the model's size.

    Queries may overlap or leave a gap, so scores are divided by their sum over classes. A pixel
    without any score has confidence 0, margin 0 and entropy 1.
    """
    total = scores_KHW.sum(0).clamp_(min=_LEAST_SCORE)
    best, second = _two_highest(scores_KHW)
    s_log_s = (scores_KHW + _LEAST_SCORE).log_().mul_(scores_KHW).sum(0)
    entropy = (total.log() - s_log_s / total) / math.log(max(len(scores_KHW), 2))
    entropy.masked_fill_(total == _LEAST_SCORE, 1)
    means = [(best / total).mean(), entropy.mean(), ((best - second) / total).mean()]
    return torch.stack(means).clamp(0, 1)


def _two_highest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The highest and second-highest along the first axis; five times as fast as `topk` on the CPU."""
    best, second = scores[0], torch.zeros_like(scores[0])
    for row in scores[1:]:
        second = torch.maximum(second, torch.minimum(best, row))
        best = torch.maximum(best, row)
    return best, second
