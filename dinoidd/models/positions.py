"""Sine position encoding of a feature map (DETR's, normalised)."""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def sine_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """[height * width, dim] float32: the first half of the features for y, the second for x."""
    half = dim // 2
    exponent = torch.arange(half, device=device, dtype=torch.float32) // 2 * 2 / half
    periods = 10_000.0**exponent

    def features(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, device=device, dtype=torch.float32)
        angles = steps / (count + 1e-6) * (2 * math.pi)
        phases = angles[:, None] / periods
        return torch.stack([phases[:, 0::2].sin(), phases[:, 1::2].cos()], dim=-1).flatten(1)

    y = features(height)[:, None].expand(height, width, half)
    x = features(width)[None].expand(height, width, half)
    return torch.cat([y, x], dim=-1).flatten(0, 1)
