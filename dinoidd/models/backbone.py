"""The DINOv3 vision transformer (arXiv 2508.10104).

Parameter names are those of the published checkpoints.
Shapes: B images, N tokens (class, storage, patches), D embed_dim, h heads, d head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models.config import BackboneConfig
from dinoidd.models.rope import RotaryEmbedding, rotate
from dinoidd.models.tables import normal_table


class PatchEmbed(nn.Module):
    """Non-overlapping patches, one token each."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(3, config.embed_dim, size, stride=size)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        return self.proj(image_B3HW).flatten(2).transpose(1, 2)


class QKV(nn.Linear):
    """One matmul for queries, keys and values. Keys have no bias: the mask holds 1, 0, 1 in thirds."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__(dim, 3 * dim, bias=bias)
        if bias:
            mask = torch.ones(3 * dim)
            mask[dim : 2 * dim] = 0
            self.register_buffer("bias_mask", mask)

    def forward(self, x_BND: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.get_buffer("bias_mask")
        return F.linear(x_BND, self.weight, bias)


def weight_and_bias(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """A matrix and what is added behind it, to be put into another form."""
    bias = None if linear.bias is None else linear.bias.detach()
    if isinstance(linear, QKV) and bias is not None:
        bias = bias * linear.get_buffer("bias_mask")  # keys have none
    return linear.weight.detach(), bias


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions on the patch tokens."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = QKV(config.embed_dim, config.qkv_bias)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x_BND: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        B, N, D = x_BND.shape
        qkv = self.qkv(x_BND).view(B, N, 3 * self.heads, D // self.heads)
        q_k = rotate(qkv[:, :, : 2 * self.heads], *rope)  # in one pass
        q_BhNd, k_BhNd = q_k.transpose(1, 2).chunk(2, dim=1)
        v_BhNd = qkv[:, :, 2 * self.heads :].transpose(1, 2)
        out = F.scaled_dot_product_attention(q_BhNd, k_BhNd, v_BhNd)
        return self.proj(out.transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """The branch scaled and added, in one pass."""
        return torch.addcmul(x, branch, self.gamma)


class Block(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim, eps = config.embed_dim, config.norm_eps
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(config)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = (Mlp if config.ffn == "mlp" else SwiGlu)(dim, config.ffn_hidden)
        self.ls2 = LayerScale(dim)

    def forward(self, x_BND: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x_BND = self.ls1(x_BND, self.attn(self.norm1(x_BND), rope))
        return self.ls2(x_BND, self.mlp(self.norm2(x_BND)))


class Backbone(nn.Module):
    """Returns the four taken blocks' tokens, after the final norm."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.cls_token = normal_table(1, 1, dim, std=0.02)
        self.storage_tokens = normal_table(1, config.storage_tokens, dim, std=0.02)
        self.mask_token = normal_table(1, dim, std=0.02)  # of the pretraining; unused here
        self.patch_embed = PatchEmbed(config)
        self.rope_embed = RotaryEmbedding(
            config.head_dim, config.rope_base, prefix=1 + config.storage_tokens
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        if config.local_cls_norm:
            self.local_cls_norm = nn.LayerNorm(dim, eps=config.norm_eps)

    def forward(self, image_B3HW: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Four pairs (patches [B, H/16 * W/16, D], class token [B, D]); the image is normalised."""
        B, _, H, W = image_B3HW.shape
        size = self.config.patch_size
        prefix = torch.cat([self.cls_token, self.storage_tokens], dim=1).expand(B, -1, -1)
        x_BND = torch.cat([prefix, self.patch_embed(image_B3HW)], dim=1)
        rope = self.rope_embed.tables(H // size, W // size)
        taken = []
        for index, block in enumerate(self.blocks):
            x_BND = block(x_BND, rope)
            if index in self.config.taken_blocks:
                normed = self.norm(x_BND)
                taken.append((normed[:, prefix.shape[1] :], normed[:, 0]))
        return taken
