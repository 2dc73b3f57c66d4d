"""The backbone's matrices in 8 bits: half of bfloat16's memory, and with float8 twice its speed.

A row of a matrix (an output) has a scale of its own, and with float8 so has each token, found on the way.
Of vit7b16's 15.3 GB in bfloat16 the backbone's matrices are 13.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.models.backbone import weight_and_bias
from dinoidd.models.fusion import pair_swiglus
from dinoidd.models.segmenter import Segmenter

_FLOAT8 = torch.float8_e4m3fn
_FLOAT8_MAX = torch.finfo(_FLOAT8).max
_LEAST = 1e-12  # of a scale: a row of zeros stays zeros


class Float8Linear(nn.Module):
    """Weights and inputs in float8 (e4m3), products summed up in float32 by the GPU's own units; on a
    CPU the same numbers, slowly."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        quantised, scale = _rows_in_float8(weight_OI)
        self.register_buffer("weight", quantised)
        self.register_buffer("scale", scale.T.contiguous())  # [1, O]
        self.register_buffer("bias", bias_O)

    def forward(self, x: Tensor) -> Tensor:
        x_MI, scale_M1 = _rows_in_float8(x.flatten(0, -2))
        if x.is_cuda:
            out = torch._scaled_mm(
                x_MI,
                self.weight.T,
                scale_a=scale_M1,
                scale_b=self.scale,
                bias=self.bias,
                out_dtype=x.dtype,
                use_fast_accum=True,
            )
        else:
            product = (x_MI.float() @ self.weight.float().T) * scale_M1 * self.scale
            out = (product if self.bias is None else product + self.bias.float()).to(x.dtype)
        return out.unflatten(0, x.shape[:-1])


class Int8Linear(nn.Module):
    """Weights in 8-bit integers, widened to the input's dtype as they are used: for small GPUs."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        scale_O1 = weight_OI.float().abs().amax(1, keepdim=True).clamp(min=_LEAST) / 127
        quantised = (weight_OI.float() / scale_O1).round_().clamp_(-127, 127).to(torch.int8)
        self.register_buffer("weight", quantised)
        self.register_buffer("scale", scale_O1[:, 0].to(weight_OI.dtype))
        self.register_buffer("bias", bias_O)

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias


_KINDS = {"float8": Float8Linear, "int8": Int8Linear}


@torch.no_grad()
def quantise(model: Segmenter, kind: str) -> Segmenter:
    """Replace the matrices of the backbone's blocks in place, one after another.

    Args:
        kind: `float8` or `int8`.
    """
    pair_swiglus(model.backbone)
    for block in model.backbone.blocks:
        matrices = [(n, m) for n, m in block.named_modules() if isinstance(m, nn.Linear)]
        for name, linear in matrices:
            block.set_submodule(name, _KINDS[kind](*weight_and_bias(linear)))
    return model


def _rows_in_float8(x_RI: Tensor) -> tuple[Tensor, Tensor]:
    """Rows scaled to float8's range, and their scales [R, 1] float32."""
    scale_R1 = x_RI.abs().amax(1, keepdim=True).float().clamp(min=_LEAST) / _FLOAT8_MAX
    return (x_RI.float() / scale_R1).clamp(-_FLOAT8_MAX, _FLOAT8_MAX).to(_FLOAT8), scale_R1
