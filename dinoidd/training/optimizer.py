"""AdamW with a rate and a decay for each kind of parameter."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from dinoidd.models import Segmenter
from dinoidd.training.config import OptimizerConfig
from dinoidd.training.sharding import placed

# Learned tables outside of nn.Embedding; like norms and biases they are not pulled to zero.
_TABLES = ("cls_token", "storage_tokens", "level_embed", "level_encoding")
STATE = ("step", "exp_avg", "exp_avg_sq")


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """AdamW's groups of what is trained; `rate` is the group's share of the schedule's rate."""
    undecayed = _undecayed(model)
    last = model.config.backbone.taken_blocks[-1] if isinstance(model, Segmenter) else 0
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed else config.weight_decay
            groups[rate_of(name, last, config), decay].append(parameter)
    return [
        {"params": parameters, "rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def rate_of(name: str, last_block: int, config: OptimizerConfig) -> float:
    """A parameter's share of the learning rate.

    The backbone's last block has `backbone_rate`; each block before it `layer_decay` times that of the
    next one, and so have the patch embedding and the tokens, before the first.
    """
    if name.startswith("adapter."):
        return config.adapter_rate
    if not name.startswith("backbone."):
        return 1.0
    parts = name.split(".")
    if parts[1] == "norm":
        return config.backbone_rate
    block = int(parts[2]) if parts[1] == "blocks" else -1
    return config.backbone_rate * config.layer_decay ** (last_block - block)


def _undecayed(model: nn.Module) -> set[str]:
    names = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}
    for path, module in model.named_modules():
        inside = [name for name, _ in module.named_parameters(recurse=False)]
        tables = inside if isinstance(module, nn.Embedding) else set(inside) & set(_TABLES)
        names |= {f"{path}.{name}".lstrip(".") for name in tables}
    return names


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over what is trained. Its rates are set before each step, by `set_rates`."""
    groups = parameter_groups(model, config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Each group's share of that rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: step.NAME, exp_avg.NAME, exp_avg_sq.NAME."""
    return {
        f"{kind}.{name}": optimizer.state[parameter][kind]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for kind in STATE
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put the state of `optimizer_tensors` back."""
    for name, parameter in model.named_parameters():
        if f"step.{name}" in tensors:
            step, *moments = (tensors[f"{kind}.{name}"].clone() for kind in STATE)
            state = {"step": step.to(parameter.device)}
            state |= {k: placed(m, parameter) for k, m in zip(STATE[1:], moments, strict=True)}
            optimizer.state[parameter] = state
