"""A model made ready for a run: what learns, in which precision, on which device."""

import torch

from dinoidd.models import Segmenter
from dinoidd.training.config import TrainConfig
from dinoidd.training.parameters import select, training_mode
from dinoidd.training.precision import network_dtype, shrink_frozen
from dinoidd.training.recompute import recompute_activations
from dinoidd.training.sharding import shard
from dinoidd.training.start import start_from_scratch


def prepare(model: Segmenter, config: TrainConfig, device: torch.device) -> Segmenter:
    """The same model, in place: trained parts in float32, frozen matrices in the network's dtype.

    A preset of which everything is trained begins as training from scratch should. A sharded model
    needs the process group.
    """
    if config.preset is not None and config.trained == "all":
        start_from_scratch(model, config.seed)
    select(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    shrink_frozen(model, network_dtype(config, device))
    model.to(device)
    training_mode(model)
    if config.activation_checkpointing:
        recompute_activations(model)
    if config.compile:
        for block in model.backbone.blocks:
            block.compile()
    return shard(model) if config.sharding == "fsdp" else model
