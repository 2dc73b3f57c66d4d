"""The reference implementation's arrangement of the same arithmetic, to measure ours against.

Mask2Former's published code (arXiv 2112.01527), as DINOv3's segmenter runs it: attention with
materialised masks and weights, maps whose channels come first, deformable attention by one `grid_sample`
a level into a stack, masks of every decoder layer at full resolution, the pixel decoder in float32, one
image at a time, and logits at the original size in float32 on the CPU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models import Segmenter
from dinoidd.models.deformable import DeformableAttention, Size
from dinoidd.models.query_decoder import MultiHeadAttention, QueryDecoder, QueryOutput


class StackedDeformableAttention(DeformableAttention):
    """All samples of all levels side by side, then one weighted sum."""

    def forward(
        self, query_BQD: Tensor, reference_Q2: Tensor, value_BND: Tensor, sizes: list[Size]
    ) -> Tensor:
        B, Q, _ = query_BQD.shape
        h, L, P = self.heads, self.levels, self.points
        value = self.value_proj(value_BND).unflatten(2, (h, -1))
        offsets = self.sampling_offsets(query_BQD).float().view(B, Q, h, L, P, 2)
        cells = torch.tensor([(w, rows) for rows, w in sizes], device=offsets.device)
        places = reference_Q2[:, None, None, None] + offsets / cells[:, None]
        weights = self.attention_weights(query_BQD).float().view(B, Q, h, L * P).softmax(-1)
        samples = []
        parts = value.split([rows * columns for rows, columns in sizes], dim=1)
        for level, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            maps = part.flatten(2).transpose(1, 2).reshape(B * h, -1, *size).float()
            grid = (2 * places[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
            samples.append(F.grid_sample(maps, grid, mode="bilinear", align_corners=False))
        weights = weights.transpose(1, 2).reshape(B * h, 1, Q, L * P)
        stacked = torch.stack(samples, dim=-2).flatten(-2)
        out = (stacked * weights).sum(-1).view(B, -1, Q).transpose(1, 2)
        return self.output_proj(out.to(value.dtype))


class MaterialisedAttention(MultiHeadAttention):
    """`nn.MultiheadAttention` as it is called there: the weights are made, averaged and dropped."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, allowed_B1QN: Tensor | None = None
    ) -> Tensor:
        blocked = None
        if allowed_B1QN is not None:
            blocked = ~allowed_B1QN.expand(-1, self.heads, -1, -1).flatten(0, 1)
        out, _ = F.multi_head_attention_forward(
            query.transpose(0, 1),
            key.transpose(0, 1),
            value.transpose(0, 1),
            embed_dim_to_check=query.shape[2],
            num_heads=self.heads,
            in_proj_weight=self.in_proj_weight,
            in_proj_bias=self.in_proj_bias,
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.out_proj.weight,
            out_proj_bias=self.out_proj.bias,
            attn_mask=blocked,
            need_weights=True,
        )
        return out.transpose(0, 1)


class EveryLayerDecoder(QueryDecoder):
    """Classes and masks after every layer, and attention masks from those masks resized."""

    def forward(
        self, scales: list[Tensor], mask_features: Tensor, every_layer: bool = False
    ) -> list[QueryOutput]:
        memory = [self._memory(i, scale) for i, scale in enumerate(scales)]
        place_QC = self.query_embed.weight
        x_BQC = self.query_feat.weight.expand(mask_features.shape[0], -1, -1)
        outputs = [self._predict(x_BQC, mask_features)]
        for i in range(self.config.query_layers):
            level = i % 3
            size = scales[level].shape[2:]
            masks = F.interpolate(
                outputs[-1].mask_logits, size=size, mode="bilinear", align_corners=False
            )
            inside = (masks.sigmoid().flatten(2) >= 0.5).detach()
            allowed = (inside | ~inside.any(dim=-1, keepdim=True))[:, None]
            cross = self.transformer_cross_attention_layers[i]
            x_BQC = cross(x_BQC, place_QC, *memory[level], allowed)
            x_BQC = self.transformer_self_attention_layers[i](x_BQC, place_QC)
            x_BQC = self.transformer_ffn_layers[i](x_BQC)
            outputs.append(self._predict(x_BQC, mask_features))
        return outputs


_ARRANGED = {
    DeformableAttention: StackedDeformableAttention,
    MultiHeadAttention: MaterialisedAttention,
    QueryDecoder: EveryLayerDecoder,
}


def arrange_as_reference(model: nn.Module) -> None:
    """Make the modules compute as the reference does, with the weights they have."""
    for module in model.modules():
        module.__class__ = _ARRANGED.get(type(module), type(module))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_pre_hook(_channels_first)


def _channels_first(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(),)


def reference_classes(output: QueryOutput, square: Size, size: Size) -> Tensor:
    """Class ids [*size] of the one image of a batch: masks and scores at full size, on the CPU."""
    masks = output.mask_logits.cpu().float()
    masks = F.interpolate(masks, size=square, mode="bilinear", align_corners=False)
    classes = output.class_logits.cpu().float().softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bkhw", classes, masks.sigmoid())
    scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return scores[0].argmax(0)


def reference_pass(model: Segmenter, image_13HW: Tensor, size: Size) -> Tensor:
    """One image from pixels to classes. `model` is arranged as the reference, its pixel decoder and
    what follows in float32."""
    features = model.adapter(image_13HW, model.backbone(image_13HW))
    mask_features, scales = model.pixel_decoder([f.float() for f in features])
    outputs = model.query_decoder(scales, mask_features, every_layer=True)
    square = (image_13HW.shape[2], image_13HW.shape[3])
    return reference_classes(outputs[-1], square, size)
