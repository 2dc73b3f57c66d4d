"""Axial rotary position embedding (arXiv 2104.09864), as DINOv3 uses it."""

import math

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Angles of the patch tokens' positions; they depend on the grid's size alone.

    The tables are kept for the last size, in float32: in bfloat16 neighbouring patches of a large image
    would share an angle.
    """

    def __init__(self, head_dim: int, base: float, prefix: int = 0) -> None:
        """The first `prefix` tokens (class and storage) have no position: their angle is 0."""
        super().__init__()
        self.base, self.prefix = base, prefix
        # On the CPU even in a model on the meta device: there, arithmetic makes torch import 80 MB.
        exponent = torch.arange(head_dim // 4, dtype=torch.float32, device="cpu") / (head_dim // 4)
        self.register_buffer("periods", torch.tensor((base**exponent).tolist()))
        self._kept: tuple[tuple[object, ...], tuple[Tensor, Tensor]] | None = None

    def tables(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine, as `rotate` takes them, of the prefix and a grid of height x width
        patches: [prefix + height * width, head_dim] each."""
        periods = self.get_buffer("periods")
        key = (height, width, periods.device, periods.data_ptr())
        kept = self._kept
        if kept is None or kept[0] != key:
            kept = key, _tables(periods.float(), height, width, self.prefix)
            self._kept = kept  # key and tables at once: another thread may ask for another size
        return kept[1]


def _tables(periods: Tensor, height: int, width: int, prefix: int) -> tuple[Tensor, Tensor]:
    def centres(count: int) -> Tensor:
        steps = torch.arange(count, dtype=torch.float32, device=periods.device)
        return (steps + 0.5) / count * 2 - 1

    rows, columns = torch.meshgrid(centres(height), centres(width), indexing="ij")
    positions_N2 = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    angles = (2 * math.pi * positions_N2[:, :, None] / periods).flatten(1, 2)
    angles = torch.cat([angles.new_zeros(prefix, angles.shape[1]), angles])
    sine = angles.sin()
    return angles.cos().tile(2), torch.cat([-sine, sine], dim=1)


def rotate(x_BNhd: Tensor, cos_ND: Tensor, sin_ND: Tensor) -> Tensor:
    """Turn pairs, the first half of d with the second, by their token's angle; in float32 within.

    With a signed sine this is one product and one sum over the halves swapped, for all tokens alike.
    """
    x = x_BNhd.float()
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)
    cos_N1D, sin_N1D = cos_ND[:, None], sin_ND[:, None]
    return torch.addcmul(x * cos_N1D, swapped, sin_N1D).to(x_BNhd.dtype)
