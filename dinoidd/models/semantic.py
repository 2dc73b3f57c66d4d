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

# Pixels whose K scores are held at once at the original size: 26 classes take 13 MB.
_CHUNK_PIXELS = 1 << 17
_LEAST_SCORE = 1e-30  # less is none: near the end of float32's range


@dataclass(frozen=True)
class Certainty:
    """Means over an image's pixels, each 0..1: the highest class probability, the normalised entropy,
    and the highest less the second-highest probability."""

    confidence: float
    entropy: float
    margin: float


def class_scores(logits_QK1: Tensor, masks_Qhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Class scores [K, *size] float32: softmax of classes times sigmoid of the resized masks.

    The last column of the logits is no object and is left out (Mask2Former, arXiv 2112.01527).
    """
    inside_QHW = _resize(masks_Qhw.float(), size).sigmoid_()
    classes_QK = logits_QK1.float().softmax(-1)[:, :-1]
    return (classes_QK.T @ inside_QHW.flatten(1)).unflatten(1, size)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def argmax_classes(scores: Tensor) -> Tensor:
    """The class of the highest score along the first axis, as uint8; the first one of equals.

    Several times as fast as `argmax` on the CPU, which is not vectorised along that axis.
    NaN scores give K, which is no class.
    """
    K = scores.shape[0]
    rank = torch.arange(K, 0, -1, dtype=torch.uint8, device=scores.device)
    is_best = scores == scores.amax(0)
    return K - (is_best * rank.view(K, *[1] * (scores.ndim - 1))).amax(0)


def resized_argmax(scores_KHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Class ids [*size] uint8 of scores resized bilinearly, without holding all of them resized.

    Columns are resized first, then rows in chunks: bilinear resizing is separable.
    """
    if scores_KHW.shape[1:] == size:
        return argmax_classes(scores_KHW)
    rows, (height, width) = scores_KHW.shape[1], size
    wide = _resize(scores_KHW, (rows, width))
    above, below, weight = _row_neighbours(rows, height, scores_KHW.device)
    step = max(1, _CHUNK_PIXELS // width)
    chunks = [
        argmax_classes(
            torch.lerp(
                wide[:, above[start : start + step]],
                wide[:, below[start : start + step]],
                weight[start : start + step, None],
            )
        )
        for start in range(0, height, step)
    ]
    return torch.cat(chunks)


def _row_neighbours(rows: int, height: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `height` rows: the two source rows and the weight of the second."""
    centres = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (rows / height)
    source = (centres - 0.5).clamp(min=0)
    above = source.long().clamp(max=rows - 1)
    below = (above + 1).clamp(max=rows - 1)
    return above, below, source - above


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
