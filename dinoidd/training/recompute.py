"""Activation checkpointing: layers keep their inputs alone, and run again in the backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dinoidd.models import Segmenter


def layers(model: Segmenter) -> list[nn.Module]:
    """The modules of which the network is a chain: blocks, interactions and decoder layers."""
    if model.config.head == "linear":
        return [*model.backbone.blocks]
    decoder = model.query_decoder
    return [
        *model.backbone.blocks,
        *model.adapter.interactions,
        *model.pixel_decoder.encoder.encoder.layers,
        *decoder.transformer_cross_attention_layers,
        *decoder.transformer_self_attention_layers,
        *decoder.transformer_ffn_layers,
    ]


def recompute_activations(model: Segmenter) -> None:
    """From now on each layer whose gradient is wanted forgets its activations; numbers stay the same."""
    for layer in layers(model):
        if not isinstance(layer.forward, partial):
            layer.forward = partial(_run, layer, layer.forward)


def _run(layer: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    tensors = (value for value in inputs if isinstance(value, Tensor))
    wanted = any(t.requires_grad for t in (*tensors, *layer.parameters()))
    if not (wanted and torch.is_grad_enabled()):
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)
