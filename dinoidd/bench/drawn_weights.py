"""A model with drawn weights, made where it is measured: 7B parameters take a GPU a second."""

from typing import Any

import torch
from torch import nn

from dinoidd.models import Segmenter, SegmenterConfig, meta_segmenter
from dinoidd.models.deformable import DeformableAttention
from dinoidd.models.rope import RotaryEmbedding

_STD = 0.02  # of tokens and queries


@torch.no_grad()
def drawn_segmenter(
    config: SegmenterConfig, dtype: torch.dtype, device: torch.device, seed: int
) -> Segmenter:
    """Weights that keep activations at a sane size: matrices drawn for their inputs' number, norms that
    change nothing. The same seed gives the same weights on the same kind of device."""
    model = meta_segmenter(config).to(dtype).to_empty(device=device).requires_grad_(False)
    draw = torch.Generator(device).manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1:
            is_table = name.endswith(("tokens", "token", "embed.weight", "feat.weight"))
            fan_in = tensor[0].numel()
            tensor.normal_(std=_STD if is_table else fan_in**-0.5, generator=draw)
        elif tensor.is_floating_point():
            tensor.fill_(float(name.endswith(("gamma", "weight", "running_var", "bias_mask"))))
    for module in model.modules():
        _computed(module, device)
    return model.eval()


def _computed(module: Any, device: torch.device) -> None:
    """What is not drawn: places to look at first, and angles."""
    if isinstance(module, DeformableAttention):
        module.look_around()
    elif isinstance(module, RotaryEmbedding):
        head_dim = 4 * len(module.get_buffer("periods"))
        module.periods = RotaryEmbedding(head_dim, module.base).get_buffer("periods").to(device)
    elif isinstance(module, nn.BatchNorm2d):
        module.get_buffer("num_batches_tracked").zero_()
