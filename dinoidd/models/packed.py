"""Matrices laid out once for a CPU's bfloat16 units, with what follows them in the same step.

Plain torch lays a matrix out anew for each product (oneDNN), copies the bias to where the sum goes, and
applies a ReLU in another pass over memory: for Mask2Former's feed-forward at 512x512 (5,376 tokens, 4,096
wide, of 256) that is more than half of its time. These are the operators that `torch.compile` takes for
a frozen network.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dinoidd.models.backbone import QKV, weight_and_bias
from dinoidd.models.relu_linear import ReluLinear

Module = TypeVar("Module", bound=nn.Module)
_OPERATORS: Any = torch.ops.mkldnn
_KINDS = {nn.Linear: "none", ReluLinear: "relu", QKV: "none"}  # and what follows the sum


class PackedLinear(nn.Module):
    """The same numbers from a matrix that is laid out; it can be neither moved nor saved."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, then: str) -> None:
        super().__init__()
        self._packed = _OPERATORS._reorder_linear_weight(weight_OI.contiguous(), None)
        self._bias, self._then = bias_O, then

    def forward(self, x: Tensor) -> Tensor:
        return _OPERATORS._linear_pointwise(x, self._packed, self._bias, self._then, [], "")


@torch.no_grad()
def pack_linears(model: Module) -> Module:
    """Replace the matrices of a bfloat16 network in place, one after another, where this CPU computes
    in bfloat16; any other network is left as it is."""
    if not (torch.backends.mkldnn.is_available() and _OPERATORS._is_mkldnn_bf16_supported()):
        return model
    for name, module in [*model.named_modules()]:
        if type(module) not in _KINDS or module.weight.dtype != torch.bfloat16:
            continue
        packed = PackedLinear(*weight_and_bias(module), _KINDS[type(module)])
        model.set_submodule(name, packed)
    return model
