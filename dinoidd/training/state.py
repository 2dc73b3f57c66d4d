"""Where a run stands: all that it takes to go on as if it had never stopped."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinoidd.errors import CheckpointError
from dinoidd.training.optimizer import STATE, optimizer_tensors, restore_optimizer
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
    """Put a captured state back into a model prepared in the same way.

    Raises:
        CheckpointError: the state is of another training; nothing is changed then.
    """
    _check_same(model, state)
    with torch.no_grad():
        for name, tensor in trained_tensors(model).items():
            tensor.copy_(placed(state.weights[name], tensor))
    restore_optimizer(model, optimizer, state.optimizer)


def _check_same(model: nn.Module, state: RunState) -> None:
    expected = {name: tensor.shape for name, tensor in trained_tensors(model).items()}
    for name, parameter in model.named_parameters():
        if f"step.{name}" in state.optimizer:  # what never had a gradient has no moments
            moments = {f"{kind}.{name}": parameter.shape for kind in STATE}
            expected |= moments | {f"step.{name}": torch.Size()}
    found = {name: tensor.shape for name, tensor in (state.weights | state.optimizer).items()}
    wrong = sorted(n for n in expected | found if expected.get(n) != found.get(n))
    if wrong:
        raise CheckpointError(
            f"the state after epoch {state.epoch} is of another training: {len(wrong)} tensors are "
            f"missing, unknown or of another shape, {wrong[0]} first. Go on with the settings that it "
            "was begun with, or train into another output"
        )


def _copied(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU; they are put together one at a time, also for who does not keep them."""
    copies = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            copies[name] = full.cpu().clone()
    return copies
