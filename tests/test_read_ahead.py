"""What is read ahead of a training: in order, a few groups, and by a loop that rests meanwhile."""

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray_operators import Operator
from segment_runs import embedded_ray

from dinoidd.train.read_ahead import (
    MOST_GROUPS,
    BoundedReadAhead,
    PacedLoop,
    most_ahead,
    read_ahead,
)

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the tests

CPUS = max(4, os.cpu_count() or 1)  # of the embedded Ray


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


def operator(name: str, *, running: int = 0) -> Operator:
    return Operator(name=name, num_active_tasks=lambda: running)


@pytest.mark.parametrize(
    ("name", "waiting", "running", "more"),
    [
        ("MapBatches(read_group)", 3, 2, True),
        ("MapBatches(read_group)", 4, 2, False),
        ("MapBatches(read_group)", 0, 6, False),
        ("ReadPieces->SplitBlocks(9)", 250, 1, True),
    ],
)
def test_bounded_read_ahead__counts_what_runs_and_what_is_ready(
    name: str, waiting: int, running: int, more: bool
) -> None:
    context = DataContext()
    context.set_config("dinoidd.most_groups_ahead", 6)
    op = operator(name, running=running)
    topology = {op: SimpleNamespace(total_enqueued_output_blocks=lambda: waiting)}
    assert BoundedReadAhead(context, topology, None).can_add_input(op) is more


@pytest.mark.parametrize(
    ("idling", "reading", "rests"), [(True, 0, 0), (False, 0, 1), (False, 1, 0), (True, 1, 0)]
)
def test_paced_loop__rests_only_where_ray_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, idling: bool, reading: int, rests: int
) -> None:
    rested: list[float] = []
    monkeypatch.setattr("dinoidd.train.read_ahead.time", SimpleNamespace(sleep=rested.append))
    operators = [operator("ReadPieces", running=1), operator("MapBatches(read)", running=reading)]
    executor = SimpleNamespace(_consumer_idling=lambda: idling, _topology=operators)
    PacedLoop().on_execution_step(executor)
    assert len(rested) == rests


def test_most_ahead__is_shared_by_the_workers() -> None:
    assert [most_ahead(workers) for workers in (1, 2, 1000)] == [2 * CPUS, CPUS, 4]


def marking(folder: Path, group: int) -> pa.Table:
    (folder / str(group)).touch()
    return pa.table({"group": [group]})


def numbers(tables: Iterator[pa.Table]) -> list[int]:
    return [table.column("group")[0].as_py() for table in tables]


def test_read_ahead__in_order_however_long_each_takes() -> None:
    def read(group: int) -> pa.Table:
        time.sleep(0.3 if group % 7 == 0 else 0)
        return pa.table({"group": [group]})

    assert numbers(read_ahead(30, read, 6)) == list(range(30))


def test_read_ahead__as_many_as_there_may_be(tmp_path: Path) -> None:
    assert numbers(read_ahead(MOST_GROUPS, partial(marking, tmp_path), 32)) == list(range(512))
    with pytest.raises(ValueError, match="513 groups: 512 at most"):
        next(read_ahead(MOST_GROUPS + 1, partial(marking, tmp_path), 32))


def test_read_ahead__does_not_run_away_from_a_slow_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    rest = PacedLoop.on_execution_step

    def counted(self: PacedLoop, executor: Any) -> None:
        steps.append(time.monotonic())
        rest(self, executor)

    monkeypatch.setattr(PacedLoop, "on_execution_step", counted)
    tables = read_ahead(60, partial(marking, tmp_path), 4)
    next(tables)
    time.sleep(2)  # the training's step
    settled = time.monotonic()
    time.sleep(2)
    read = len(list(tmp_path.iterdir()))
    looked = sum(moment > settled for moment in steps)
    assert 4 <= read <= 14, "those that may, the one taken, and those on their way out"
    assert 1 <= looked <= 40, "a loop without a pause looks hundreds of times"
    assert numbers(tables) == list(range(1, 60))


def test_read_ahead__holds_back_its_own_data_set_alone() -> None:
    numbers(read_ahead(3, lambda group: pa.table({"group": [group]}), 4))
    context = DataContext.get_current()
    assert PacedLoop not in context.custom_execution_callback_classes
    assert BoundedReadAhead not in context.get_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY)
    assert context.execution_no_progress_timeout_s != -1
