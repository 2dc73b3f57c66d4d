"""ViT-Adapter (arXiv 2205.08534) as DINOv3's segmenter uses it: a pyramid beside a plain ViT.

Shapes: B images, N tokens of the strides 8, 16 and 32 in that order, D embed_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models.config import AdapterConfig
from dinoidd.models.deformable import DeformableAttention, Size, pixel_centres
from dinoidd.models.tables import normal_table

_TOKEN_STRIDES = (8, 16, 32)


def _conv_bn_relu(inside: int, outside: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]


class SpatialPrior(nn.Module):
    """A small convolution pyramid at strides 4, 8, 16 and 32, each projected to D channels."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        stem = _conv_bn_relu(3, width, 2)
        stem += _conv_bn_relu(width, width, 1) + _conv_bn_relu(width, width, 1)
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1))
        self.conv2 = nn.Sequential(*_conv_bn_relu(width, 2 * width, 2))
        self.conv3 = nn.Sequential(*_conv_bn_relu(2 * width, 4 * width, 2))
        self.conv4 = nn.Sequential(*_conv_bn_relu(4 * width, 4 * width, 2))
        self.fc1 = nn.Conv2d(width, dim, 1)
        self.fc2 = nn.Conv2d(2 * width, dim, 1)
        self.fc3 = nn.Conv2d(4 * width, dim, 1)
        self.fc4 = nn.Conv2d(4 * width, dim, 1)

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c1 = self.stem(image_B3HW)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution over each scale's map on its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x_BND: Tensor, sizes: list[Size]) -> Tensor:
        maps = (self.dwconv(m) for m in tokens_to_maps(x_BND, sizes))
        return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)


class ConvFfn(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BND: Tensor, sizes: list[Size]) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x_BND), sizes)))


class Extractor(nn.Module):
    """The pyramid's tokens read the ViT's patch tokens."""

    def __init__(self, dim: int, config: AdapterConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, eps=1e-6)
        self.feat_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DeformableAttention(dim, config.heads, 1, config.points, config.value_ratio)
        self.ffn = ConvFfn(dim, int(dim * config.ffn_ratio))
        self.ffn_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self, c_BND: Tensor, points_N2: Tensor, sizes: list[Size], patches: Tensor, grid: Size
    ) -> Tensor:
        values = self.feat_norm(patches)
        c_BND = c_BND + self.attn(self.query_norm(c_BND), points_N2, values, [grid])
        return c_BND + self.ffn(self.ffn_norm(c_BND), sizes)


class Interaction(nn.Module):
    """One extractor; the last interaction has two more on the same values."""

    def __init__(self, dim: int, config: AdapterConfig, extra: int) -> None:
        super().__init__()
        self.extractor = Extractor(dim, config)
        if extra:
            self.extra_extractors = nn.ModuleList(Extractor(dim, config) for _ in range(extra))
        self.extra = extra

    def forward(self, c_BND: Tensor, *where: object) -> Tensor:
        c_BND = self.extractor(c_BND, *where)
        for extractor in self.extra_extractors if self.extra else ():
            c_BND = extractor(c_BND, *where)
        return c_BND


class Adapter(nn.Module):
    """Four feature maps of D channels at strides 4, 8, 16 and 32."""

    def __init__(self, dim: int, config: AdapterConfig) -> None:
        super().__init__()
        self.spm = SpatialPrior(config.stem_width, dim)
        self.level_embed = normal_table(3, dim)
        self.interactions = nn.ModuleList(
            Interaction(dim, config, extra=2 if i == 3 else 0) for i in range(4)
        )
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.norm1 = nn.BatchNorm2d(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.norm3 = nn.BatchNorm2d(dim)
        self.norm4 = nn.BatchNorm2d(dim)
        self.to_finest = nn.Identity()  # of the patches that are added at stride 4; see `fusion`

    def forward(self, image_B3HW: Tensor, taken: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """`taken` is what the backbone returned for the same image."""
        H, W = image_B3HW.shape[2:]
        sizes = [(H // s, W // s) for s in _TOKEN_STRIDES]
        grid = (H // 16, W // 16)
        points_N2 = pixel_centres(sizes, image_B3HW.device)
        c1, *rest = self.spm(image_B3HW)
        tokens = (
            c.flatten(2).transpose(1, 2) + e for c, e in zip(rest, self.level_embed, strict=True)
        )
        c_BND = torch.cat(list(tokens), dim=1)
        for interaction, (patches, _) in zip(self.interactions, taken, strict=True):
            c_BND = interaction(c_BND, points_N2, sizes, patches, grid)
        c2, c3, c4 = tokens_to_maps(c_BND, sizes)
        c1 = self.up(c2) + c1
        first, *others = (patches for patches, _ in taken)
        vit_maps = [tokens_to_maps(p, [grid])[0] for p in (self.to_finest(first), *others)]
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        levels = zip(norms, (c1, c2, c3, c4), vit_maps, strict=True)
        return [norm(c + _resize(v, c.shape[2:])) for norm, c, v in levels]


def _resize(x_BDHW: Tensor, size: torch.Size) -> Tensor:
    if x_BDHW.shape[2:] == size:
        return x_BDHW
    return F.interpolate(x_BDHW, size=size, mode="bilinear", align_corners=False)


def tokens_to_maps(x_BND: Tensor, sizes: list[Size]) -> list[Tensor]:
    """Cut tokens into their levels' maps [B, D, rows, columns], channels last in memory as they are."""
    parts = x_BND.split([height * width for height, width in sizes], dim=1)
    return [p.unflatten(1, s).permute(0, 3, 1, 2) for p, s in zip(parts, sizes, strict=True)]
