"""The network's arithmetic: bfloat16 under autocast, or float32 proper (no TF32). The losses are always
float32."""

from contextlib import AbstractContextManager

import torch
from torch import nn

from dinoidd.models.query_decoder import MultiHeadAttention
from dinoidd.training.config import TrainConfig

# Autocast runs these in bfloat16 from float32 weights, so that keeping the weights so changes no number.
_MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, MultiHeadAttention)


def network_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """bfloat16 or float32; `auto` is bfloat16 on GPUs."""
    if config.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """The context of a forward pass of the network."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def shrink_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the matrices that are not trained in the network's dtype: half the memory."""
    for module in model.modules():
        if isinstance(module, _MATRICES):
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1 and not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
