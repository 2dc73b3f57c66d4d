"""Where a run stands: all that it takes to go on as if it had never stopped."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinoidd.training.optimizer import optimizer_tensors, restore_optimizer
from dinoidd.training.parameters import trained_tensors
from dinoidd.training.sharding import placed, whole


@dataclass(kw_only=True)
class RunState:
    """After a whole epoch. Schedule and order of the data follow from `step` and `epoch` alone."""

    epoch: int  # finished ones
    step: int  # optimiser steps made
    best_epoch: int  # 0: none yet
    best_miou: float
    # On the CPU; workers but the first have none, as the first one alone writes them down.
    weights: dict[str, Tensor]  # by the model's names
    optimizer: dict[str, Tensor]  # step.NAME, exp_avg.NAME, exp_avg_sq.NAME


def capture(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int,
    step: int,
    best_epoch: int,
    best_miou: float,
    keep: bool = True,
) -> RunState:
    """The state as it is now, copied; without tensors unless `keep`. Every worker has to call it."""
    weights = _copied(trained_tensors(model), keep)
    moments = _copied(optimizer_tensors(model, optimizer), keep)
    return RunState(
        epoch=epoch,
        step=step,
        best_epoch=best_epoch,
        best_miou=best_miou,
        weights=weights,
        optimizer=moments,
    )


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState) -> None:
    """Put a captured state back into a model prepared in the same way."""
    own = trained_tensors(model)
    assert own.keys() == state.weights.keys(), "the state is of another training"
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(placed(state.weights[name], tensor))
    restore_optimizer(model, optimizer, state.optimizer)


def _copied(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU; they are put together one at a time, also for who does not keep them."""
    copies = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            copies[name] = full.cpu().clone()
    return copies
