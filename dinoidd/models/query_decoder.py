"""Mask2Former's transformer decoder (arXiv 2112.01527): queries read the image through their masks.

Shapes: B images, Q queries, N tokens of one scale, C decoder width, K classes, h heads, d head width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models.config import DecoderConfig
from dinoidd.models.positions import sine_positions
from dinoidd.models.relu_linear import ReluLinear
from dinoidd.models.tables import embedding


@dataclass
class QueryOutput:
    """What the queries found: class logits [B, Q, K+1] (last: no object), mask logits [B, Q, h, w],
    and the queries [B, Q, C] that the classifier read."""

    class_logits: Tensor
    mask_logits: Tensor
    queries: Tensor


class MultiHeadAttention(nn.Module):
    """Attention with the parameters of `nn.MultiheadAttention`, through torch's fused kernels."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, allowed_B1QN: Tensor | None = None
    ) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        projected = (
            F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        q_BhQd, k_BhNd, v_BhNd = projected
        out_BhQd = F.scaled_dot_product_attention(q_BhQd, k_BhNd, v_BhNd, attn_mask=allowed_B1QN)
        return self.out_proj(out_BhQd.transpose(1, 2).flatten(2))


class CrossAttentionLayer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.multihead_attn = MultiHeadAttention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, x_BQC: Tensor, place_QC: Tensor, keys: Tensor, values: Tensor, allowed: Tensor
    ) -> Tensor:
        return self.norm(x_BQC + self.multihead_attn(x_BQC + place_QC, keys, values, allowed))


class SelfAttentionLayer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BQC: Tensor, place_QC: Tensor) -> Tensor:
        placed = x_BQC + place_QC
        return self.norm(x_BQC + self.self_attn(placed, placed, x_BQC))


class FeedForwardLayer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.linear1 = ReluLinear(config.width, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BQC: Tensor) -> Tensor:
        return self.norm(x_BQC + self.linear2(self.linear1(x_BQC)))


class MaskEmbed(nn.Module):
    """A three-layer perceptron from a query to the weights of its mask."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        return third(F.relu(second(F.relu(first(x)))))

    def masks(self, x_BQC: Tensor, features_BCHW: Tensor) -> Tensor:
        """Each query's mask logits [B, Q, H, W]."""
        masks = self(x_BQC) @ features_BCHW.flatten(2)
        return masks.unflatten(2, features_BCHW.shape[2:])


class FoldedMaskEmbed(nn.Module):
    """A mask embedding that has taken in the 1x1 convolution before the mask features: one more output
    is what the convolution's bias adds to all of a query's mask."""

    def __init__(self, embed: MaskEmbed, matrix_CD: Tensor, bias_C: Tensor) -> None:
        super().__init__()
        last: nn.Linear
        self.first, self.second, last = embed.layers  # type: ignore[assignment]
        folded = torch.cat([matrix_CD, bias_C[:, None]], dim=1).T  # [D + 1, C]
        self.last = nn.Linear(last.in_features, len(folded), device="meta")
        weight, bias = folded @ last.weight.float(), folded @ last.bias.float()
        self.last.weight = nn.Parameter(weight.to(last.weight.dtype), requires_grad=False)
        self.last.bias = nn.Parameter(bias.to(last.weight.dtype), requires_grad=False)

    def masks(self, x_BQC: Tensor, features_BDHW: Tensor) -> Tensor:
        """As `MaskEmbed.masks`, of the features before that convolution."""
        embedding = self.last(F.relu(self.second(F.relu(self.first(x_BQC)))))
        weights_BQD, added_BQ1 = embedding[..., :-1], embedding[..., -1:]
        features_BDN = features_BDHW.flatten(2)
        if features_BDN.device.type == "cpu":  # would copy what stands second
            masks = torch.baddbmm(added_BQ1.mT, features_BDN.mT, weights_BQD.mT).mT.contiguous()
        else:
            masks = torch.baddbmm(added_BQ1, weights_BQD, features_BDN)
        return masks.unflatten(2, features_BDHW.shape[2:])


class QueryDecoder(nn.Module):
    """The classifier is apart from the no-object row: one is trained, the other kept."""

    def __init__(self, config: DecoderConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        C, layers = config.width, range(config.query_layers)
        self.query_feat = embedding(config.queries, C)
        self.query_embed = embedding(config.queries, C)
        self.level_embed = embedding(3, C)
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(config) for _ in layers
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(config) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(config) for _ in layers)
        self.post_norm = nn.LayerNorm(C)
        self.mask_embed = MaskEmbed(C)
        self.classifier = nn.Linear(C, classes)
        self.no_object = nn.Linear(C, 1)

    def forward(
        self, scales: list[Tensor], mask_features: Tensor, every_layer: bool = False
    ) -> list[QueryOutput]:
        """The last layer's output; with `every_layer` those before layer 0, 1, ... come first."""
        memory = [self._memory(i, scale) for i, scale in enumerate(scales)]
        small = [_shrink(mask_features, scale.shape[2:]) for scale in scales]
        place_QC = self.query_embed.weight
        x_BQC = self.query_feat.weight.expand(mask_features.shape[0], -1, -1)
        outputs = []
        for i in range(self.config.query_layers):
            level = i % 3
            if every_layer:
                outputs.append(self._predict(x_BQC, mask_features))
            allowed = self._allowed(x_BQC, small[level])
            x_BQC = self.transformer_cross_attention_layers[i](
                x_BQC, place_QC, *memory[level], allowed
            )
            x_BQC = self.transformer_self_attention_layers[i](x_BQC, place_QC)
            x_BQC = self.transformer_ffn_layers[i](x_BQC)
        return [*outputs, self._predict(x_BQC, mask_features)]

    def _memory(self, level: int, scale_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of one scale; only keys carry the position."""
        values = scale_BCHW.flatten(2).transpose(1, 2) + self.level_embed.weight[level]
        height, width = scale_BCHW.shape[2:]
        positions = sine_positions(height, width, values.shape[2], values.device)
        return values + positions.to(values.dtype), values

    def _predict(self, x_BQC: Tensor, mask_features: Tensor) -> QueryOutput:
        normed = self.post_norm(x_BQC)
        classes = torch.cat([self.classifier(normed), self.no_object(normed)], dim=-1)
        masks = self.mask_embed.masks(normed, mask_features)
        return QueryOutput(class_logits=classes, mask_logits=masks, queries=normed)

    def _allowed(self, x_BQC: Tensor, features_BCHW: Tensor) -> Tensor:
        """Where each query may look, [B, 1, Q, N]: inside its mask, or anywhere if that is empty.

        Bilinear resizing commutes with the product over channels, so the features are shrunk once
        instead of every layer's masks.
        """
        with torch.no_grad():
            masks = self.mask_embed.masks(self.post_norm(x_BQC), features_BCHW)
            inside = masks.flatten(2) >= 0
            return (inside | ~inside.any(dim=-1, keepdim=True))[:, None]


def _shrink(features_BCHW: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(features_BCHW, size=size, mode="bilinear", align_corners=False)
