"""How an image is shown to the model: whole, as one square, or through windows that slide over it.

Sizes are (rows, columns), in pixels. Windows, strides and scales as in DINOv3's evaluation on ADE20K
(arXiv 2508.10104): windows of 896 every 596 on the image with its short side at 896; five scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from dinoidd.config import Windows
from dinoidd.data.image import DecodedImage
from dinoidd.errors import ImageError
from dinoidd.inference.predictor import Frames, Images, Size


@dataclass(frozen=True, kw_only=True)
class Framing:
    """What is made of an image before the model sees it: its frames, one a scale."""

    image_size: int  # of the square, where there are no windows
    windows: Windows | None = None

    def shapes(self, size: Size) -> list[Size]:
        """Sizes of the frames of an image of that size."""
        if self.windows is None:
            return [(self.image_size, self.image_size)]
        short = self.windows.short_side or min(size)
        factors = (short * scale / min(size) for scale in self.windows.scales)
        return [(_scaled(size[0], f), _scaled(size[1], f)) for f in factors]

    def frames(self, image: DecodedImage, max_pixels: int) -> list[np.ndarray]:
        """The frames, uint8 [h, w, 3] each.

        Raises:
            ImageError: `too_large`, where a narrow strip would become a frame over `max_pixels`.
        """
        shapes = self.shapes(image.size)
        height, width = max(shapes)
        if self.windows is not None and height * width > max_pixels:
            what = f"{image.size[1]} x {image.size[0]} pixels become {width} x {height} for the windows"
            limit = (
                f"over the limit of {max_pixels:,}: raise --max-pixels, or use --short-side native"
            )
            raise ImageError("too_large", f"{what}, {limit}")
        return [image.resized(shape) for shape in shapes]

    def unpacked(self, data: memoryview | bytes, size: Size) -> list[np.ndarray]:
        """The frames of an image of that size, from their bytes in a row; nothing is copied."""
        pixels, frames, start = np.frombuffer(data, np.uint8), [], 0
        for height, width in self.shapes(size):
            stop = start + 3 * height * width
            frames.append(pixels[start:stop].reshape(height, width, 3))
            start = stop
        return frames

    def batch(self, images: Sequence[Frames]) -> Images:
        """Images, each by its frames, as the model's `Scorer` wants them."""
        return images if self.windows else np.stack([square for (square,) in images])

    def mode(self) -> object:
        """For fingerprints: everything here that decides an answer."""
        return "whole image" if self.windows is None else self.windows.to_dict()


def _scaled(length: int, factor: float) -> int:
    return max(1, round(length * factor))


def packed(frames: Sequence[np.ndarray]) -> bytes:
    """The frames' bytes in a row; `Framing.unpacked` is the way back."""
    return frames[0].tobytes() if len(frames) == 1 else b"".join(f.tobytes() for f in frames)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis: every `stride`, the last one shifted to end with the image.

    An image that is not longer than a window has one, at 0.
    """
    last = max(0, length - window)
    return [min(i * stride, last) for i in range(-(-last // stride) + 1)]


def window_corners(size: Size, windows: Windows) -> list[Size]:
    """Upper left corners of all windows over a frame of that size, row by row."""
    rows, columns = (window_starts(length, windows.size, windows.stride) for length in size)
    return list(product(rows, columns))


def blend_weights(windows: Windows, device: torch.device) -> Tensor:
    """What a window's pixels weigh where windows overlap, float32 [size, size].

    `mean`: all the same, as in the reference. `hann`: a bell, so that no seam is seen where a window
    ends; it is nowhere 0, since a corner of the image lies in one window alone.
    """
    if windows.blend == "mean":
        return torch.ones(windows.size, windows.size, device=device)
    centres = (torch.arange(windows.size, device=device) + 0.5) / windows.size
    bell = (centres * torch.pi).sin() ** 2
    return bell[:, None] * bell
