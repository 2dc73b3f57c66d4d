"""Two processes of a group are one worker, whether each has the model or a part of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from small_models import SMALL
from torch import nn
from training_runs import (
    CPU,
    LOSS,
    MemoryFeed,
    assert_same_states,
    config_of,
    memory_feed,
    ready_model,
    run,
)

from dinoidd.models import Segmenter
from dinoidd.train.group import Group, averaging
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import OptimizerConfig, TrainConfig
from dinoidd.training.parameters import trained_tensors
from dinoidd.training.sharding import is_sharded
from dinoidd.training.step import ImageLosses

WORKERS = 2
SMALLER = replace(
    SMALL,
    backbone=replace(SMALL.backbone, depth=4),
    decoder=replace(SMALL.decoder, pixel_layers=1, query_layers=1),
)


def cases() -> dict[str, TrainConfig]:
    """What each group trains."""
    fast = OptimizerConfig(learning_rate=1e-3)
    config = partial(config_of, epochs=2, optimizer=fast, workers=WORKERS, micro_batch=1)
    still = OptimizerConfig(learning_rate=1e-12)
    pixel = replace(LOSS, kind="pixel")
    return {
        "head": config(trained="head"),
        "all": config(trained="all", loss=pixel, epochs=1),
        "all sharded": config(trained="all", loss=pixel, epochs=1, sharding="fsdp"),
        "all sharded again": config(
            trained="all", loss=pixel, epochs=2, sharding="fsdp", activation_checkpointing=True
        ),
        "half sharded": config(trained="adapter", epochs=1, sharding="fsdp", precision="bfloat16"),
        "still": config(trained="adapter", epochs=1, optimizer=still),
    }


@dataclass
class WatchedFeed(MemoryFeed):
    """Notes, when a batch is asked for, whether all gradients of those before are reduced."""

    model: Segmenter | None = None
    reduced: list[bool] = field(default_factory=list)

    def train(self, first_epoch: int, epochs: int) -> Iterator[ImageBatch]:
        assert self.model is not None
        for batch in super().train(first_epoch, epochs):
            self.reduced.append(any(p.grad is not None for p in self.model.parameters()))
            yield batch


@dataclass(frozen=True)
class Seat:
    """One of the workers' places, without the others."""

    rank: int
    size: int = WORKERS

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values


def synchronised_logits(config: TrainConfig) -> torch.Tensor:
    """Of a model that was prepared as on CUDA; in inference, as SyncBatchNorm trains nowhere else."""
    with mock.patch("dinoidd.training.prepare.synchronises", return_value=True):
        model = ready_model(config, SMALLER)
    assert isinstance(model.adapter.norm1, nn.SyncBatchNorm)
    with torch.no_grad():
        output = model.eval()(torch.ones(1, 3, 64, 64), False)[-1]
    return output.class_logits


def worker(rank: int, folder: str) -> None:
    """One process: every case, and what the first one reached goes to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=WORKERS
    )
    reached: dict[str, Any] = {}
    for name, config in cases().items():
        model = ready_model(config, SMALLER)
        assert is_sharded(model) == (config.sharding == "fsdp")
        state = reached["all sharded"][1] if name == "all sharded again" else None
        if state is not None:
            state = torch.load(f"{folder}/state.pt", weights_only=False)
        world = Group(CPU)
        images = memory_feed(config, world=world)
        feed = WatchedFeed(config, images.train_images, images.val_images, world, model)
        made = run(config, model=model, feed=feed, state=state, world=world, wrap=averaging(CPU))
        reached[name] = (made.losses, made.states[-1])
        reached[f"{name}: reduced"] = feed.reduced
        if name == "all sharded":
            if rank == 0:
                torch.save(made.states[-1], f"{folder}/state.pt")
            torch.distributed.barrier()
    reached["synchronised"] = synchronised_logits(cases()["all sharded"])
    if rank == 0:
        torch.save(reached, f"{folder}/reached.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("group")
    torch.multiprocessing.spawn(worker, args=(str(folder),), nprocs=WORKERS)
    return torch.load(Path(folder) / "reached.pt", weights_only=False)


def assert_same(ours: Any, other: Any) -> None:
    """Losses and states."""
    assert ours[0] == pytest.approx(other[0], rel=1e-5)
    assert_same_states(ours[1], other[1])


def test_workers__two_equal_one(reached: dict[str, Any]) -> None:
    config = replace(cases()["head"], workers=1)
    alone = run(config, model=ready_model(config, SMALLER))
    assert_same(reached["head"], (alone.losses, alone.states[-1]))


def test_workers__sharded_equals_unsharded(reached: dict[str, Any]) -> None:
    """The gradient's norm is over all parts, and so are the optimiser's moments."""
    assert_same(reached["all sharded"], reached["all"])


def test_workers__sharded_run_goes_on(reached: dict[str, Any]) -> None:
    losses, state = reached["all sharded again"]
    assert len(losses) == 2
    assert state.epoch == 2
    assert state.step == 4
    before = reached["all sharded"][1].weights
    assert any(not torch.equal(before[n], w) for n, w in state.weights.items())


def test_workers__sharded_in_bfloat16(reached: dict[str, Any]) -> None:
    losses, state = reached["half sharded"]
    assert all(torch.tensor(losses).isfinite())
    assert all(w.dtype in (torch.float32, torch.int64) for w in state.weights.values())


def test_workers__sharded_gradients_are_reduced_with_each_micro_batch(
    reached: dict[str, Any],
) -> None:
    """Between micro-batches FSDP shows no gradient but a reduced one, and keeps whole ones hidden."""
    assert reached["all sharded: reduced"] == [False, True, False, True]


def test_workers__synchronised_norms_can_be_sharded(reached: dict[str, Any]) -> None:
    model = ready_model(replace(cases()["all"], workers=1), SMALLER).eval()
    with torch.no_grad():
        expected = model(torch.ones(1, 3, 64, 64), False)[-1].class_logits
    torch.testing.assert_close(reached["synchronised"], expected, rtol=1e-4, atol=1e-5)


def seen_by(rank: int, config: TrainConfig) -> dict[str, torch.Tensor]:
    """Statistics of BatchNorms after the images of one worker alone."""
    model = ready_model(config, SMALLER)
    losses = ImageLosses(model, config, CPU)
    for batch in memory_feed(config, world=Seat(rank)).train(1, 1):
        losses(batch)
    return {n: t for n, t in trained_tensors(model).items() if n.endswith(("_mean", "_var"))}


def test_workers__norms_go_on_from_the_mean_of_all(reached: dict[str, Any]) -> None:
    _, state = reached["still"]
    ours, others = (seen_by(rank, cases()["still"]) for rank in range(WORKERS))
    assert len(ours) == 20
    assert any((t - others[n]).abs().max() > 1e-3 for n, t in ours.items())
    for name, tensor in ours.items():
        torch.testing.assert_close(
            state.weights[name], (tensor + others[name]) / 2, rtol=1e-4, atol=1e-6, msg=name
        )
