"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159).

In plain torch, or on a GPU by the kernels of `deformable_triton.py`, which are held against it in tests.
Shapes: B images, Q queries, N value tokens over all levels, h heads, L levels, P points, d head width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models import gathered_sampling
from dinoidd.models.kernels import gpu_kernels

Size = tuple[int, int]  # rows, columns
kernels = gpu_kernels("deformable_triton")


class DeformableAttention(nn.Module):
    """Each query reads `points` places a head and level, around its own reference point."""

    def __init__(
        self, dim: int, heads: int, levels: int, points: int, value_ratio: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        value_dim = int(dim * value_ratio)
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, value_dim)
        self.output_proj = nn.Linear(value_dim, dim)
        self.look_around()

    def look_around(self) -> None:
        """Start with every head looking its own way, point p at distance p + 1, all weighted alike."""
        if self.sampling_offsets.weight.is_meta:
            return
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        way = torch.stack([angles.cos(), angles.sin()], dim=-1)
        way = way / way.abs().amax(dim=-1, keepdim=True)
        distance = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = way[:, None, None] * distance[:, None]
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
            self.attention_weights.weight.zero_()
            self.attention_weights.bias.zero_()

    def forward(
        self, query_BQD: Tensor, reference_Q2: Tensor, value_BND: Tensor, sizes: list[Size]
    ) -> Tensor:
        """Attend; `reference_Q2` holds (x, y) in 0..1, `sizes` the levels' maps in value order."""
        value = self.value_proj(value_BND)
        attended = attend(
            value.unflatten(2, (self.heads, -1)),
            self.sampling_offsets(query_BQD),
            self.attention_weights(query_BQD),
            reference_Q2,
            sizes,
        )
        return self.output_proj(attended)


def attend(
    value_BNhd: Tensor, offsets: Tensor, logits: Tensor, reference_Q2: Tensor, sizes: list[Size]
) -> Tensor:
    """Weighted sums of bilinear samples (zeros outside), [B, Q, h * d] in the values' dtype; in the way
    that is fastest where the values are. `plain_attention` is the one to compare with.

    Args:
        offsets: [B, Q, h * L * P * 2], (x, y) in pixels of each level's map.
        logits: [B, Q, h * L * P], before the softmax over L * P.
        reference_Q2: (x, y) in 0..1, float32.
        sizes: the levels' maps in the order of the values.
    """
    if kernels is not None and kernels.takes(value_BNhd):
        return kernels.fused_attention(value_BNhd, offsets, logits, reference_Q2, sizes)
    if gathered_sampling.takes(value_BNhd, offsets, logits):
        return gathered_sampling.gathered_attention(
            value_BNhd, offsets, logits, reference_Q2, sizes
        )
    return plain_attention(value_BNhd, offsets, logits, reference_Q2, sizes)


def plain_attention(
    value_BNhd: Tensor, offsets: Tensor, logits: Tensor, reference_Q2: Tensor, sizes: list[Size]
) -> Tensor:
    """See `attend`; by `grid_sample`, in float32.

    Queries go last, also in memory: softmax and sums over points are then vectorised, and nothing is
    copied for `grid_sample`. Places stay in float32: bfloat16 has 8 bits, and a map 128 wide needs more
    than that.
    """
    B, _, h, d = value_BNhd.shape
    Q, L = len(reference_Q2), len(sizes)
    offsets_LBhPQ2 = offsets.view(B, Q, h, L, -1, 2).permute(3, 0, 2, 4, 1, 5).contiguous().float()
    per_cell = torch.tensor([(2 / w, 2 / h_) for h_, w in sizes], device=offsets.device)
    grid = torch.addcmul(reference_Q2 * 2 - 1, offsets_LBhPQ2, per_cell.view(L, 1, 1, 1, 1, 2))
    weights_BhNQ = logits.view(B, Q, h, -1).permute(0, 2, 3, 1).contiguous().float().softmax(2)
    weights = weights_BhNQ.unflatten(2, (L, -1)).flatten(0, 1)  # B*h, L, P, Q
    total = value_BNhd.new_zeros((B * h, d, Q), dtype=torch.float32)
    start = 0
    for level, (height, width) in enumerate(sizes):
        part = value_BNhd[:, start : start + height * width]
        start += height * width
        maps = part.permute(0, 2, 3, 1).reshape(B * h, d, height, width).float()
        places = grid[level].flatten(0, 1)  # B*h, P, Q, 2; from edge to edge of the map -1..1
        samples = F.grid_sample(maps, places, mode="bilinear", align_corners=False)
        for point in range(samples.shape[2]):
            total = torch.addcmul(total, samples[:, :, point], weights[:, None, level, point])
    return total.unflatten(0, (B, h)).flatten(1, 2).transpose(1, 2).to(value_BNhd.dtype)


def pixel_centres(sizes: list[Size], device: torch.device) -> Tensor:
    """(x, y) of every pixel of every level, in 0..1, row by row: [sum of rows * columns, 2]."""
    points = []
    for height, width in sizes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack([grid_x.flatten(), grid_y.flatten()], dim=-1))
    return torch.cat(points)
