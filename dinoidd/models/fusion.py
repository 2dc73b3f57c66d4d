"""Exact rewrites of a trained network for inference: fewer and larger products, fewer passes over maps.

What is linear and follows something linear becomes one matrix, computed in float32 from both. BatchNorms
go into their convolutions; the pixel decoder's lateral 1x1 convolution into the three sums that it reads
(the finest map then never has the backbone's width: 0.5 of 7B's 20.2 TFLOP); its `mask_feature` into
the mask embedding. SwiGLU's pair of matrices is laid side by side. A fused network can neither be trained
nor saved.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models.backbone import Backbone, SwiGlu
from dinoidd.models.query_decoder import FoldedMaskEmbed
from dinoidd.models.segmenter import Segmenter

Module = TypeVar("Module", bound=nn.Module)
# Parts of a model are `Any` below: their modules are replaced by others, of other classes.


@torch.no_grad()
def fuse(model: Segmenter) -> Segmenter:
    """Rewrite the model's modules in place, one after another; no weight is held twice for long.

    A model that is fused already is left as it is.
    """
    if model.is_fused:
        return model
    pair_swiglus(model.backbone)
    if model.config.head == "mask2former":
        _fold_norms(model.adapter.spm)
        _fold_pyramid(model.adapter, model.pixel_decoder)
        _fold_mask_feature(model.pixel_decoder, model.query_decoder)
    model.is_fused = True
    return model


class PairedSwiGlu(nn.Module):
    """SwiGLU with both its inner matrices in one product."""

    def __init__(self, pair: SwiGlu) -> None:
        super().__init__()
        self.w12 = _linear(
            torch.cat([pair.w1.weight, pair.w2.weight]), torch.cat([pair.w1.bias, pair.w2.bias])
        )
        self.w3 = pair.w3

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class ProjectedUp(nn.Module):
    """A transposed convolution of 2 x 2, stride 2, and a matrix behind it, as one product a pixel, whose
    four results are put where they belong. Its bias is left to what this is added to."""

    def __init__(self, up: nn.ConvTranspose2d, matrix_OD: Tensor) -> None:
        super().__init__()
        weight = torch.einsum("od,idyx->yxoi", matrix_OD, up.weight.float())
        self.outside = len(matrix_OD)
        self.linear = _linear(weight.flatten(0, 2).to(up.weight.dtype), None)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        B, _, H, W = x_BDHW.shape
        # Flat: of several dimensions, torch copies the matrix once for each of the first ones.
        four = self.linear(x_BDHW.permute(0, 2, 3, 1).flatten(0, 2)).view(B, H, W, 2, 2, -1)
        placed = four.transpose(2, 3).reshape(B, 2 * H, 2 * W, self.outside)
        return placed.permute(0, 3, 1, 2)


def pair_swiglus(backbone: Backbone) -> None:
    """Both inner matrices of each SwiGLU become one."""
    for block in backbone.blocks:
        if isinstance(block.mlp, SwiGlu):
            block.mlp = PairedSwiGlu(block.mlp)


def _fold_norms(spatial_prior: Any) -> None:
    """Each convolution that a BatchNorm follows takes it in."""
    for stage in spatial_prior.children():
        if not isinstance(stage, nn.Sequential):
            continue
        for i, norm in enumerate(stage):
            if isinstance(norm, nn.BatchNorm2d):
                convolution: Any = stage[i - 1]
                stage[i - 1] = _scaled(convolution, *_affine(norm))
                stage[i] = nn.Identity()


def _fold_pyramid(adapter: Any, decoder: Any) -> None:
    """The adapter's BatchNorms and the decoder's first 1x1 convolutions, which alone read them."""
    for conv_norm, name in zip(decoder.input_convs, ("norm4", "norm3", "norm2"), strict=True):
        conv = conv_norm[0]
        scale, shift = _affine(getattr(adapter, name))
        weight = _matrix(conv)
        conv_norm[0] = _conv_like(conv, weight * scale, weight @ shift + conv.bias.float())
        setattr(adapter, name, nn.Identity())
    lateral = decoder.lateral_convs[0]
    scale, shift = _affine(adapter.norm1)
    lateral_scaled = _matrix(lateral) * scale
    fc1, up = adapter.spm.fc1, adapter.up
    shift = _matrix(lateral) @ shift + lateral_scaled @ (fc1.bias.float() + up.bias.float())
    adapter.spm.fc1 = _conv_like(fc1, lateral_scaled @ _matrix(fc1), shift)
    adapter.up = ProjectedUp(up, lateral_scaled)
    adapter.to_finest = _linear(lateral_scaled.to(up.weight.dtype), None)
    adapter.norm1 = nn.Identity()
    decoder.lateral_convs[0] = lateral.norm


def _fold_mask_feature(pixel_decoder: Any, query_decoder: Any) -> None:
    conv = pixel_decoder.mask_feature
    query_decoder.mask_embed = FoldedMaskEmbed(
        query_decoder.mask_embed, _matrix(conv), conv.bias.float()
    )
    pixel_decoder.mask_feature = nn.Identity()


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """What the norm multiplies and adds, float32."""
    scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
    return scale, norm.bias.float() - norm.running_mean.float() * scale


def _scaled(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """A convolution without bias, its output multiplied and added to."""
    return _conv_like(conv, conv.weight.float() * scale.view(-1, 1, 1, 1), shift)


def _matrix(conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution's weight, float32 [outside, inside]."""
    return conv.weight.float().flatten(1)


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same stride, padding and dtype with another weight, and a bias."""
    weight = weight.view(*weight.shape[:2], *conv.weight.shape[2:])
    fused = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        device="meta",
    )
    return _filled(fused, weight.to(conv.weight.dtype), bias.to(conv.weight.dtype))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    fused = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(fused, weight, bias)


def _filled(module: Module, weight: Tensor, bias: Tensor | None) -> Module:
    module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias, requires_grad=False)
    return module
