"""A model made ready for a run: what learns, in which precision, on which device."""

import torch

from dinoidd.models import Segmenter
from dinoidd.training.config import TrainConfig
from dinoidd.training.memory import out_of_memory_told
from dinoidd.training.parameters import select, synchronised_norms, training_mode
from dinoidd.training.precision import network_dtype, shrink_frozen
from dinoidd.training.recompute import recompute_activations
from dinoidd.training.sharding import shard
from dinoidd.training.start import start_from_scratch


def prepare(
    model: Segmenter, config: TrainConfig, device: torch.device, workers: int = 1
) -> Segmenter:
    """The same model, in place: trained parts in float32, frozen matrices in the network's dtype.

    A preset of which everything is trained begins as training from scratch should. A sharded model
    needs the process group.

    Args:
        workers: that train it together; BatchNorms that learn are synchronised over them, on CUDA.

    Raises:
        TrainingError: the device has no room for the model, or for a worker's part of it.
    """
    if config.preset is not None and config.trained == "all" and model.config.head != "linear":
        start_from_scratch(model, config.seed)
    select(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    shrink_frozen(model, network_dtype(config, device))
    if synchronises(device, workers):
        synchronised_norms(model)  # before it is sharded: FSDP keeps the modules that it has seen
    training_mode(model)
    if config.activation_checkpointing:
        recompute_activations(model)
    if config.compile:
        for block in model.backbone.blocks:
            block.compile()
    with out_of_memory_told(config, device):
        return shard(model, device) if config.sharding == "fsdp" else model.to(device)


def synchronises(device: torch.device, workers: int) -> bool:
    """Whether BatchNorms take their statistics over all workers; torch can on CUDA alone."""
    return workers > 1 and device.type == "cuda"
