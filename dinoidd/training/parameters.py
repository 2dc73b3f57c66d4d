"""Which parameters learn, and how the modules that hold them behave meanwhile."""

import torch
from torch import Tensor, nn

from dinoidd.models import Segmenter
from dinoidd.training.config import TrainConfig

_LINEAR = "linear_head."  # all of it is the classifier
_HEADS = ("query_decoder.", "pixel_decoder.", _LINEAR)
_PARTS = {
    "classifier": ("query_decoder.classifier.", _LINEAR),  # the no-object row is kept
    "decoder": ("query_decoder.", _LINEAR),
    "head": _HEADS,
    "adapter": (*_HEADS, "adapter."),
    "last_n_blocks": (*_HEADS, "adapter.", "backbone.norm."),
    "all": (*_HEADS, "adapter.", "backbone."),
}
_UNUSED = ("backbone.mask_token", "backbone.local_cls_norm.")  # of the pretraining
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def select(model: Segmenter, config: TrainConfig) -> list[str]:
    """Set requires_grad for what the configuration trains; the names of it are returned.

    Parameters that the output does not depend on (the pretraining's mask token and second norm, blocks
    after the last one that is read) are never trained.
    """
    backbone = model.config.backbone
    last = backbone.taken_blocks[-1]
    prefixes = _PARTS[config.trained]
    if config.trained == "last_n_blocks":
        first = max(0, last + 1 - config.blocks)
        prefixes += tuple(f"backbone.blocks.{i}." for i in range(first, last + 1))
    unused = _UNUSED + tuple(f"backbone.blocks.{i}." for i in range(last + 1, backbone.depth))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes) and not name.startswith(unused))
    return trained_names(model)


def trained_names(model: nn.Module) -> list[str]:
    """The parameters that learn, in the model's order."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def training_mode(model: nn.Module) -> None:
    """Batch statistics where a BatchNorm learns; everything else as in inference.

    There is no dropout: nothing but a BatchNorm has two ways to behave.
    """
    model.eval()
    for module in _learning_norms(model).values():
        module.train()


def norms_learn(config: TrainConfig, head: str) -> bool:
    """Whether BatchNorms are trained; all of them are the adapter's, or a linear head's.

    They use the statistics of a worker's micro-batch (of all workers' on CUDA), so that the curve
    depends on `workers` and `micro_batch`, as it does nowhere else.
    """
    return head == "linear" or "adapter." in _PARTS[config.trained]


def synchronised_norms(model: Segmenter) -> Segmenter:
    """BatchNorms that learn take their statistics over all workers. For CUDA and process groups, and
    before the model is sharded."""
    for name, module in _learning_norms(model).items():
        model.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(module))
    return model


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by the model's names: parameters, and statistics of BatchNorms."""
    tensors = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    for name, module in _learning_norms(model).items():
        tensors |= {f"{name}.{n}": buffer for n, buffer in module.named_buffers()}
    return tensors


def constant_tensors(model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """What is left of the network where all of it is trained: tables, and parameters without use.

    With them a checkpoint is whole and needs no base. Empty where less is trained.
    """
    if config.trained != "all":
        return {}
    learned = trained_tensors(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in learned}


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances of the BatchNorms that learn."""
    return [
        buffer
        for module in _learning_norms(model).values()
        for buffer in module.buffers()
        if torch.is_floating_point(buffer)
    ]


def _learning_norms(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NORMS) and module.weight.requires_grad
    }
