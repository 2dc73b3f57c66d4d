"""The class with the highest score, at a pixel of the scores' own size or of another one.

Shapes: K classes, h x w scores, H x W size asked for, N pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.models.kernels import gpu_kernels, run_on

kernels = gpu_kernels("argmax_triton")
# Pixels whose K scores are held at once at the size asked for: 26 classes take 13 MB.
_CHUNK_PIXELS = 1 << 17
_DENSE_SHARE = (
    0.5  # of pixels at borders between classes; from there on picking them out costs more
)


def argmax_classes(scores: Tensor) -> Tensor:
    """The class of the highest score along the first axis, as uint8; the first one of equals.

    Several times as fast as `argmax` on the CPU, which is not vectorised along that axis.
    NaN scores give K, which is no class.
    """
    K = scores.shape[0]
    rank = torch.arange(K, 0, -1, dtype=torch.uint8, device=scores.device)
    is_best = scores == scores.amax(0)
    return K - (is_best * rank.view(K, *[1] * (scores.ndim - 1))).amax(0)


def resized_argmax(scores_Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """Class ids [*size] uint8 of scores resized bilinearly, without holding all of them resized.

    A pixel lies between four scores' pixels. Where one class is the highest of all four, it is of every
    mixture of them too, so on the CPU only pixels at borders between classes are computed. On a GPU
    one kernel does it all.
    """
    if scores_Khw.shape[1:] == size:
        return argmax_classes(scores_Khw)
    if scores_Khw.is_cuda and kernels is not None and run_on(scores_Khw.device):
        return kernels.resized_argmax(scores_Khw, size)
    return plain_resized_argmax(scores_Khw, size)


def plain_resized_argmax(scores_Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """See `resized_argmax`; in plain torch."""
    resize = _Bilinear(scores_Khw, size)
    if scores_Khw.device.type != "cpu":  # a GPU would have to be waited for
        return resize.all_pixels()
    nearest = argmax_classes(scores_Khw)
    border = resize.corner(_differs_from_next(nearest))
    pixels = border.flatten().nonzero()[:, 0]
    if len(pixels) > _DENSE_SHARE * border.numel():
        return resize.all_pixels()
    classes = resize.corner(nearest)
    classes.view(-1)[pixels] = resize.some_pixels(pixels)
    return classes


def _differs_from_next(classes_hw: Tensor) -> Tensor:
    """Where a pixel is of another class than its neighbour to the right, below, or both."""
    differs = torch.zeros_like(classes_hw, dtype=torch.bool)
    differs[:, :-1] |= classes_hw[:, :-1] != classes_hw[:, 1:]
    differs[:-1] |= classes_hw[:-1] != classes_hw[1:]
    differs[:-1, :-1] |= classes_hw[:-1, :-1] != classes_hw[1:, 1:]
    return differs


class _Bilinear:
    """Scores [K, h, w] at another size; the corners of pixels' centres, as `F.interpolate` has them."""

    def __init__(self, scores_Khw: Tensor, size: tuple[int, int]) -> None:
        self.scores, self.size = scores_Khw, size
        device = scores_Khw.device
        self.above, self.below, self.down = _neighbours(scores_Khw.shape[1], size[0], device)
        self.left, self.right, self.across = _neighbours(scores_Khw.shape[2], size[1], device)

    def corner(self, map_hw: Tensor) -> Tensor:
        """A map's value above and to the left of each pixel, [H, W]."""
        return map_hw[self.above][:, self.left]

    def all_pixels(self) -> Tensor:
        """Class ids [H, W] uint8. Columns are resized first, then rows in chunks."""
        (height, width), rows = self.size, self.scores.shape[1]
        wide = F.interpolate(
            self.scores[None], size=(rows, width), mode="bilinear", align_corners=False
        )[0]
        step = max(1, _CHUNK_PIXELS // width)
        chunks = [
            argmax_classes(
                torch.lerp(
                    wide[:, self.above[start : start + step]],
                    wide[:, self.below[start : start + step]],
                    self.down[start : start + step, None],
                )
            )
            for start in range(0, height, step)
        ]
        return torch.cat(chunks)

    def some_pixels(self, pixels_N: Tensor) -> Tensor:
        """Class ids [N] uint8 of pixels numbered row by row."""
        rows_K = self.scores.flatten(1).T.contiguous()
        chunks = [self._pixels(rows_K, part) for part in pixels_N.split(max(1, _CHUNK_PIXELS // 4))]
        return torch.cat(chunks)

    def _pixels(self, rows_K: Tensor, pixels_N: Tensor) -> Tensor:
        y, x = pixels_N // self.size[1], pixels_N % self.size[1]
        width = self.scores.shape[2]
        above, below = self.above[y] * width, self.below[y] * width
        left, right, across = self.left[x], self.right[x], self.across[x, None]
        upper = torch.lerp(rows_K[above + left], rows_K[above + right], across)
        lower = torch.lerp(rows_K[below + left], rows_K[below + right], across)
        best = torch.lerp(upper, lower, self.down[y, None]).max(dim=1)
        return best.indices.masked_fill(best.values.isnan(), rows_K.shape[1]).to(torch.uint8)


def _neighbours(inside: int, outside: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `outside` pixels along one axis: its two of `inside`, and the second one's weight."""
    centres = (torch.arange(outside, device=device, dtype=torch.float32) + 0.5) * (inside / outside)
    source = (centres - 0.5).clamp(min=0)
    first = source.long().clamp(max=inside - 1)
    return first, (first + 1).clamp(max=inside - 1), source - first
