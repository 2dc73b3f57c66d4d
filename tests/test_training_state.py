"""A state goes back only into the training that it is of."""

from collections.abc import Callable

import pytest
import torch
from training_runs import config_of, ready_model, run

from dinoidd.errors import CheckpointError
from dinoidd.training.optimizer import make_optimizer
from dinoidd.training.state import RunState, capture, restore

BIAS = "query_decoder.classifier.bias"


@pytest.fixture
def state() -> RunState:
    return run(config_of(epochs=1)).states[-1]


def test_restore__gives_back_what_was_captured(state: RunState) -> None:
    model = ready_model(config_of())
    optimizer = make_optimizer(model, config_of().optimizer)
    restore(model, optimizer, state)
    again = capture(model, optimizer, epoch=1, step=state.step, best_epoch=1, best_miou=0.0)
    for kind in ("weights", "optimizer"):
        ours, theirs = getattr(again, kind), getattr(state, kind)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("edit", "first"),
    [
        (lambda s: s.weights.pop(BIAS), BIAS),
        (lambda s: s.weights.update(more=torch.ones(1)), "more"),
        (lambda s: s.weights.update({BIAS: torch.ones(1)}), BIAS),  # which would be broadcast
        (lambda s: s.optimizer.pop(f"exp_avg.{BIAS}"), f"exp_avg.{BIAS}"),
        (lambda s: s.optimizer.update({"step.more": torch.ones(())}), "step.more"),
        (lambda s: s.optimizer.update({f"exp_avg_sq.{BIAS}": torch.ones(1)}), f"exp_avg_sq.{BIAS}"),
    ],
)
def test_restore__another_trainings_state(
    state: RunState, edit: Callable[[RunState], object], first: str
) -> None:
    edit(state)
    model = ready_model(config_of())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        restore(model, make_optimizer(model, config_of().optimizer), state)
    assert str(raised.value) == (
        f"the state after epoch 1 is of another training: 1 tensors are missing, unknown or of another "
        f"shape, {first} first. Go on with the settings that it was begun with, or train into another "
        "output"
    )
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
