"""From bytes to what the network was trained on."""

import torch
from torch import Tensor

from dinoidd.models.config import SegmenterConfig


class PixelNorm:
    """Takes the mean from RGB bytes and divides by the deviation, in float32, on one device."""

    def __init__(self, config: SegmenterConfig, device: torch.device) -> None:
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(config.mean, device=device).view(shape) * 255
        self._std = torch.tensor(config.std, device=device).view(shape) * 255

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] on that device, as [B, 3, H, W] float32."""
        return (images_BHW3.permute(0, 3, 1, 2).float() - self._mean) / self._std
