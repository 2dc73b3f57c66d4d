"""Two processes of a group are one worker, whether each has the model or a part of it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from small_models import SMALL
from torch.nn.parallel import DistributedDataParallel
from training_runs import CPU, LOSS, assert_same_states, config_of, ready_model, run

from dinoidd.train.group import Group
from dinoidd.training.config import OptimizerConfig, TrainConfig
from dinoidd.training.sharding import is_sharded

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
    pixel = replace(LOSS, kind="pixel")
    return {
        "head": config(trained="head"),
        "all": config(trained="all", loss=pixel, epochs=1),
        "all sharded": config(trained="all", loss=pixel, epochs=1, sharding="fsdp"),
        "all sharded again": config(
            trained="all", loss=pixel, epochs=2, sharding="fsdp", activation_checkpointing=True
        ),
        "half sharded": config(trained="adapter", epochs=1, sharding="fsdp", precision="bfloat16"),
    }


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
        wrap = partial(DistributedDataParallel, broadcast_buffers=False)
        made = run(config, model=model, state=state, world=Group(CPU), wrap=wrap)
        reached[name] = (made.losses, made.states[-1])
        if name == "all sharded":
            if rank == 0:
                torch.save(made.states[-1], f"{folder}/state.pt")
            torch.distributed.barrier()
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
