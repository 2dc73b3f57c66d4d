"""Mask2Former's pixel decoder (arXiv 2112.01527): deformable encoder over strides 32, 16, 8.

Shapes: B images, N tokens of the three levels (low to high resolution), C decoder width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models.adapter import tokens_to_maps
from dinoidd.models.config import DecoderConfig
from dinoidd.models.deformable import DeformableAttention, Size, pixel_centres
from dinoidd.models.positions import sine_positions
from dinoidd.models.relu_linear import ReluLinear
from dinoidd.models.tables import normal_table

_GROUPS = 32


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward, each followed by its norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        C = config.width
        self.self_attn = DeformableAttention(C, config.heads, 3, config.points)
        self.norm1 = nn.LayerNorm(C)
        self.linear1 = ReluLinear(C, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, C)
        self.norm2 = nn.LayerNorm(C)

    def forward(
        self, x_BNC: Tensor, positions_NC: Tensor, points_N2: Tensor, sizes: list[Size]
    ) -> Tensor:
        attended = self.self_attn(x_BNC + positions_NC, points_N2, x_BNC, sizes)
        x_BNC = self.norm1(x_BNC + attended)
        return self.norm2(x_BNC + self.linear2(self.linear1(x_BNC)))


class EncoderStack(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.pixel_layers))


class Encoder(nn.Module):
    """The layers, and one learned vector a level."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.level_encoding = normal_table(3, config.width)
        self.encoder = EncoderStack(config)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        sizes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        x_BNC = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        encodings = [
            sine_positions(*size, x_BNC.shape[2], x_BNC.device).to(x_BNC.dtype) + level
            for size, level in zip(sizes, self.level_encoding, strict=True)
        ]
        positions_NC = torch.cat(encodings)
        points_N2 = pixel_centres(sizes, x_BNC.device)
        for layer in self.encoder.layers:
            x_BNC = layer(x_BNC, positions_NC, points_N2, sizes)
        return tokens_to_maps(x_BNC, sizes)


class ConvNorm(nn.Conv2d):
    """A convolution without bias, with its GroupNorm as a child named `norm`."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        super().__init__(inside, outside, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class PixelDecoder(nn.Module):
    """From the adapter's four maps to mask features and three scales for the queries."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        C = config.width
        self.input_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, C, 1), nn.GroupNorm(_GROUPS, C)) for _ in range(3)
        )
        self.encoder = Encoder(config)
        self.lateral_convs = nn.ModuleList([ConvNorm(dim, C, 1)])
        self.output_convs = nn.ModuleList([ConvNorm(C, C, 3)])
        self.mask_feature = nn.Conv2d(C, C, 1)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features [B, C, H/4, W/4], and maps of C channels at strides 32, 16 and 8."""
        f1, f2, f3, f4 = features
        low_to_high = zip(self.input_convs, (f4, f3, f2), strict=True)
        scales = self.encoder([conv(f) for conv, f in low_to_high])
        lateral = self.lateral_convs[0](f1)
        upsampled = F.interpolate(
            scales[-1], size=lateral.shape[2:], mode="bilinear", align_corners=False
        )
        fine = self.output_convs[0](lateral + upsampled).relu_()
        return self.mask_feature(fine), scales
