"""Axial rotary position embedding (arXiv 2104.09864), as DINOv3 uses it."""

import math

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Angles of the patch tokens' positions; they depend on the grid's size alone.

    The tables are kept for the last size, in float32: in bfloat16 neighbouring patches of a large image
    would share an angle.
    """

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        # On the CPU even in a model on the meta device: there, arithmetic makes torch import 80 MB.
        exponent = torch.arange(head_dim // 4, dtype=torch.float32, device="cpu") / (head_dim // 4)
        self.register_buffer("periods", torch.tensor((base**exponent).tolist()))
        self._key: tuple[object, ...] = ()
        self._tables: tuple[Tensor, Tensor] | None = None

    def tables(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine for a grid of height x width patches, each [height * width, head_dim]."""
        periods = self.get_buffer("periods")
        key = (height, width, periods.device, periods.data_ptr())
        if self._tables is None or key != self._key:
            self._key, self._tables = key, _tables(periods.float(), height, width)
        return self._tables


def _tables(periods: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    def centres(count: int) -> Tensor:
        steps = torch.arange(count, dtype=torch.float32, device=periods.device)
        return (steps + 0.5) / count * 2 - 1

    rows, columns = torch.meshgrid(centres(height), centres(width), indexing="ij")
    positions_N2 = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    angles = 2 * math.pi * positions_N2[:, :, None] / periods
    angles_ND = angles.flatten(1, 2).tile(2)
    return angles_ND.cos(), angles_ND.sin()


def rotate(x_BhND: Tensor, cos_ND: Tensor, sin_ND: Tensor, prefix: int) -> Tensor:
    """Rotate the tokens after the first `prefix` (class and storage tokens have no position)."""
    fixed, moving = x_BhND[:, :, :prefix], x_BhND[:, :, prefix:].float()
    first, second = moving.chunk(2, dim=-1)
    moving = moving * cos_ND + torch.cat([-second, first], dim=-1) * sin_ND
    return torch.cat([fixed, moving.to(x_BhND.dtype)], dim=2)
