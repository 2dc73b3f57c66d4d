"""Where a run stands: the output's last checkpoint, which is written after each epoch, and the best one.

Ray Train's own checkpoints are not used. It looks after its workers now and then, and takes notice of a
report when it does: workers that die meanwhile would fall back behind epochs that are finished (Ray
2.60,
checked: two short epochs were lost).
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray.train
from torch import Tensor

from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.file import read_local_header
from dinoidd.checkpoint.trained import (
    Trained,
    TrainedInfo,
    load_trained_state,
    read_trained_info,
    save_trained,
)
from dinoidd.errors import OutputError, StorageError
from dinoidd.train.plan import Plan
from dinoidd.train.relay import Nobody, RelayedRecorder
from dinoidd.training.recipes import to_plain
from dinoidd.training.state import RunState
from dinoidd.training.world import World

BEST, LAST = "best.safetensors", "last.safetensors"
_STATE = ("best_epoch", "best_miou")  # beside epoch and step
_METRICS = ("miou", "val_loss", "train_loss", "pixel_accuracy")


def last_state(plan: Plan, world: World) -> RunState | None:
    """The state that all workers go on from; None where no epoch is finished.

    Raises:
        OutputError: it is none to go on from.
        StorageError: the workers read different ones, since somebody writes them still.
    """
    state = _read(plan) if plan.output.exists(LAST) else None
    epoch = 0 if state is None else state.epoch
    if world.sum(np.array([epoch]))[0] != epoch * world.size:
        raise StorageError("unreadable", f"{plan.output.uri_of(LAST)} changed while it was read")
    return state


def _read(plan: Plan) -> RunState:
    with tempfile.TemporaryDirectory(prefix="dinoidd-") as folder:
        path = Path(folder) / LAST
        with plan.output.open_read(LAST) as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy, 16 << 20)
        info = read_trained_info(read_local_header(path), plan.output.uri_of(LAST))
        if missing := [name for name in _STATE if name not in info.state]:
            raise OutputError(
                f"{plan.output.uri_of(LAST)} does not say its {' and '.join(missing)}, so this version "
                "cannot go on from it: train into another output, with it as the checkpoint"
            )
        trained = load_trained_state(path, info)
    return RunState(
        epoch=info.epoch,
        step=info.step,
        **{name: info.state[name] for name in _STATE},
        weights=trained.tensors,
        optimizer=trained.optimizer,
    )


def save_state(
    plan: Plan,
    base: Base,
    constants: dict[str, Tensor],
    recorder: RelayedRecorder | Nobody,
    state: RunState,
    is_best: bool,
) -> None:
    """Every worker's part in the end of an epoch: the first one writes, all meet in the report.

    `constants` are what a training of the whole network leaves alone: the file needs no base with them.
    """
    if isinstance(recorder, Nobody):
        ray.train.report({"epoch": state.epoch})
        return
    record = recorder.last
    assert record is not None
    metrics = {name: getattr(record, name) for name in _METRICS}
    info = TrainedInfo(
        config=replace(plan.model, image_size=plan.image_size),
        table=plan.table,
        base=base,
        training=to_plain(plan.config),
        epoch=state.epoch,
        step=state.step,
        metrics=metrics,
        state={name: getattr(state, name) for name in _STATE},
    )
    with tempfile.TemporaryDirectory(prefix="dinoidd-") as folder:
        path = Path(folder) / LAST
        trained = Trained(
            info=info, tensors=state.weights, optimizer=state.optimizer, constants=constants
        )
        save_trained(trained, path)
        for name in (BEST, LAST) if is_best else (LAST,):
            plan.output.upload(path, name)
    ray.train.report({"epoch": state.epoch, **metrics})
