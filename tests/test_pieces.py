"""The source of a run's pieces of work: few tasks, one block for each number, and little memory."""

import os
import signal
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
from ray_operators import Operator
from segment_runs import embedded_ray

from dinoidd.segment.cluster import Placement
from dinoidd.segment.pieces import (
    COLUMN,
    PIECES_PER_TASK,
    LeanDriver,
    Pieces,
    ShortQueue,
    bound_memory,
)
from dinoidd.segment.pipeline import run_stages

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the tests


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


class Echo:
    """The model of these runs."""

    def __call__(self, table: pa.Table) -> pa.Table:
        assert len(table) == 1, "one chunk stays one block"
        return table


def run(pieces: list[int], read: Any) -> list[int]:
    return list(running(pieces, read))


def running(pieces: list[int], read: Any) -> Iterator[int]:
    results = run_stages(
        pieces,
        read=read,
        model=Echo,
        arguments={},
        write=lambda table: {"piece": table.column("piece")[0].as_py()},
        placement=Placement(device="cpu", actors=1, threads=1),
    )
    for result in results:
        yield result["piece"]


def read_number(piece: int) -> pa.Table:
    assert type(piece) is int
    return pa.table({"piece": [piece]})


def numbers_of(source: Pieces) -> list[list[int]]:
    """What each task reads, in one block."""
    tasks = [list(task()) for task in source.get_read_tasks(1)]
    assert all(len(blocks) == 1 for blocks in tasks)
    return [blocks[0].column(COLUMN).to_pylist() for blocks in tasks]


@pytest.mark.parametrize("count", [0, 1, 2, 511, 512, 513, 1024, 1025, 5000])
def test_pieces__tasks_differ_by_one_number_at_most(count: int) -> None:
    shares = numbers_of(Pieces(range(7, 7 + count)))
    assert [n for share in shares for n in share] == list(range(7, 7 + count))
    assert len(shares) == -(-count // PIECES_PER_TASK)
    sizes = [len(share) for share in shares]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    # Ray splits the block of each task into ceil(count / tasks) blocks, by its own rounding
    assert all(size <= -(-count // len(shares)) for size in sizes)


def test_pieces__a_task_that_runs_again_reads_the_same() -> None:
    source = Pieces([5, 3, 900])
    assert numbers_of(source) == numbers_of(source) == [[5, 3, 900]]


def test_pieces__of_ten_million_images_are_few_tasks() -> None:
    tasks = Pieces(range(156_250)).get_read_tasks(156_250)
    assert len(tasks) == 306
    assert sum(task.metadata.num_rows for task in tasks) == 156_250


def test_short_queue__bounds_how_many_numbers_wait() -> None:
    waiting = {"ReadPieces->SplitBlocks(9)": 250, "ReadPieces": 256, "MapBatches(read_rows)": 900}
    topology = {
        Operator(name=name): SimpleNamespace(total_enqueued_output_blocks=partial(int, count))
        for name, count in waiting.items()
    }
    policy = ShortQueue(DataContext.get_current(), topology, None)
    limits = [policy.max_task_output_bytes_to_read(op) for op in topology]
    assert limits == [6 * 512, 0, None]


def test_lean_driver__empties_what_operators_keep() -> None:
    operators = [SimpleNamespace(_output_blocks_stats=[1, 2]), SimpleNamespace()]
    LeanDriver().on_execution_step(SimpleNamespace(_topology=operators))
    assert operators[0]._output_blocks_stats == []


def test_bound_memory__twice_is_once() -> None:
    context = DataContext()
    bound_memory(context)
    bound_memory(context)
    assert context.custom_execution_callback_classes == [LeanDriver]
    policies = context.get_config("backpressure_policies.enabled", [])
    assert [policy for policy in policies if policy is ShortQueue] == [ShortQueue]


def test_run_stages__every_piece_once_from_several_tasks(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinoidd.segment.pieces.PIECES_PER_TASK", 8)
    pieces = [3 * i for i in range(45)]  # shares of 8 and 7
    assert sorted(run(pieces, read_number)) == pieces


def test_run_stages__a_piece_comes_when_it_is_done(local_ray: None, tmp_path: Path) -> None:
    """Not when the next one is: that may take long, and rates would be wrong."""

    def read(piece: int) -> pa.Table:
        until = time.monotonic() + 30
        while piece and not (tmp_path / f"{piece - 1}").exists():
            assert time.monotonic() < until, f"{piece - 1} has not come"
            time.sleep(0.01)
        return read_number(piece)

    for piece in running([0, 1, 2], read):
        (tmp_path / f"{piece}").touch()
    assert (tmp_path / "2").exists()


def test_run_stages__the_operators_keep_nothing(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray still keeps there what the callback empties, and still asks the policies: if another
    version does neither, this is where it shows."""
    kept: list[int] = []
    queued: list[int] = []
    forget, wait = LeanDriver.on_execution_step, ShortQueue.max_task_output_bytes_to_read

    def counted(self: LeanDriver, executor: Any) -> None:
        operators = [op for op in executor._topology if op.input_dependencies]
        kept.append(sum(len(op._output_blocks_stats) for op in operators))
        forget(self, executor)
        assert not any(op._output_blocks_stats for op in operators)

    def watched(self: ShortQueue, op: Any) -> int | None:
        if op.name.startswith("ReadPieces"):
            queued.append(self._topology[op].total_enqueued_output_blocks())
        return wait(self, op)

    monkeypatch.setattr(LeanDriver, "on_execution_step", counted)
    monkeypatch.setattr(ShortQueue, "max_task_output_bytes_to_read", watched)
    monkeypatch.setattr("dinoidd.segment.pieces._QUEUED", 4)
    monkeypatch.setattr("dinoidd.segment.pieces._YIELDED", 2)
    assert sorted(run(list(range(60)), read_number)) == list(range(60))
    assert sum(kept) >= 60
    assert 0 < max(queued) <= 8, "two tasks, and what each had begun to hand over"


def test_run_stages__a_killed_worker_costs_no_piece(local_ray: None, tmp_path: Path) -> None:
    def read(piece: int) -> pa.Table:
        mark = tmp_path / f"{piece}"
        if piece % 10 == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read_number(piece)

    assert sorted(run(list(range(30)), read)) == list(range(30))
    assert len(list(tmp_path.iterdir())) == 3, "each was killed once"


def test_run_stages__a_killed_source_task_makes_the_same_pieces(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It dies after its first blocks are on their way; Ray takes the rest from its second life."""
    mark = tmp_path / "killed"

    def dying(numbers: Any) -> Any:
        def blocks() -> Iterator[pa.Table]:
            yield pa.table({COLUMN: numbers})
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        return blocks()

    monkeypatch.setattr("dinoidd.segment.pieces._block_of", dying)
    assert sorted(run(list(range(40)), read_number)) == list(range(40))
    assert mark.exists()
