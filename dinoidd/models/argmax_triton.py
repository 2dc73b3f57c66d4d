"""The class of each pixel of scores at another size, on a GPU: resizing and choice in one pass.

Nothing is held at the size asked for but the answer. The plain torch version, `argmax.py`, is the
reference; where two classes tie but for rounding, either may be the answer.
Shapes: K classes, h x w scores, H x W size asked for.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256  # pixels a program


def resized_argmax(scores_Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """Class ids [*size] uint8 of float32 scores resized bilinearly; NaN scores give K."""
    K, h, w = scores_Khw.shape
    height, width = size
    classes = torch.empty(size, dtype=torch.uint8, device=scores_Khw.device)
    with torch.cuda.device_of(scores_Khw):
        _argmax_kernel[(triton.cdiv(height * width, _BLOCK),)](
            scores_Khw.contiguous(),
            classes,
            K,
            h,
            w,
            height,
            width,
            h / height,
            w / width,
            block=_BLOCK,
        )
    return classes


@triton.jit
def _neighbours(place, inside, step):
    """Of a pixel along one axis: its two of the scores, and the second one's weight."""
    source = tl.maximum((place.to(tl.float32) + 0.5) * step - 0.5, 0.0)
    first = tl.minimum(source.to(tl.int32), inside - 1)
    return first, tl.minimum(first + 1, inside - 1), source - first.to(tl.float32)


@triton.jit
def _argmax_kernel(scores, classes, K, h, w, height, width, step_y, step_x, block: tl.constexpr):
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    exists = pixel < height * width
    above, below, down = _neighbours(pixel // width, h, step_y)
    left, right, across = _neighbours(pixel % width, w, step_x)
    best = tl.full((block,), float("-inf"), dtype=tl.float32)
    answer = tl.zeros((block,), dtype=tl.int32)
    is_nan = tl.zeros((block,), dtype=tl.int1)
    plane = scores
    for k in range(K):
        upper_left = tl.load(plane + above * w + left, mask=exists, other=0.0)
        upper_right = tl.load(plane + above * w + right, mask=exists, other=0.0)
        lower_left = tl.load(plane + below * w + left, mask=exists, other=0.0)
        lower_right = tl.load(plane + below * w + right, mask=exists, other=0.0)
        upper = upper_left + across * (upper_right - upper_left)
        lower = lower_left + across * (lower_right - lower_left)
        score = upper + down * (lower - upper)
        is_nan = is_nan | (score != score)
        answer = tl.where(score > best, k, answer)
        best = tl.maximum(best, score)
        plane += h * w
    tl.store(classes + pixel, tl.where(is_nan, K, answer).to(tl.uint8), mask=exists)
