"""The numbers of a run's pieces of work as a Ray Data source, and what keeps millions of them cheap.

`ray.data.range` with a block for each number makes a task for each of them before anything runs (7.6 kB
and 2 ms on the driver). Here a task makes hundreds of blocks, and is asked for them when they are
needed. Three things of Ray 2.60 stand in the way, and each has its remedy here:

- `target_max_block_size=None` joins all that a source task yields into one block. What Ray makes of
  `override_num_blocks` beyond the number of tasks, a split of each block, is not joined again.
- Backpressure counts bytes, and a number has few: without `ShortQueue` and `Guard` the driver would
  take them all.
- Operators keep statistics of every block until the end (ray#66016): `LeanDriver` clears them.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import DataContext, Datasource
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor_state import OutputBackpressureGuard
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

COLUMN = "piece"
PIECES_PER_TASK = 512  # made again when a source task dies, which takes a second
_QUEUED = 256  # blocks that wait to be read
_BLOCK_BYTES = 512  # of one number in the object store, at least (578 in Ray 2.60)
_YIELDED = 64  # blocks that a source task makes before they are asked for
_TASKS_AT_A_TIME = 2  # one begins while the other ends


def numbered_blocks(pieces: Sequence[int]) -> ray.data.Dataset:
    """One block of one row, `piece` int64, for each of the pieces; about in order.

    Where the data set preserves order, they come exactly so, but more than PIECES_PER_TASK may stand
    still: a second source task's numbers can fill the queue that the first one's have to pass.

    A source task that runs again makes the same blocks again, and Ray takes those it has not seen.
    """
    source = Pieces(pieces)
    return ray.data.read_datasource(
        source,
        override_num_blocks=max(1, len(source)),
        concurrency=min(_TASKS_AT_A_TIME, max(1, source.tasks)),
        num_cpus=0,  # it waits to be asked; another figure than the next stage's, so never fused
        # Ray yields a block and its metadata
        ray_remote_args={"_generator_backpressure_num_objects": 2 * _YIELDED},
    )


class Pieces(Datasource):
    """Few tasks that each read many numbers as one block."""

    def __init__(self, pieces: Sequence[int]) -> None:
        super().__init__()
        self._numbers = np.asarray(pieces, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def tasks(self) -> int:
        return -(-len(self) // PIECES_PER_TASK)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Shares that differ by one number at most: Ray splits them all into equally many blocks."""
        shares = np.array_split(self._numbers, self.tasks) if self.tasks else []
        return [ReadTask(partial(_block_of, share), _metadata(share)) for share in shares]

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown to Ray, so that it does not split by size."""
        return None


def _block_of(numbers: np.ndarray) -> Iterable[pa.Table]:
    return [pa.table({COLUMN: numbers})]


def _metadata(numbers: np.ndarray) -> BlockMetadata:
    return BlockMetadata(
        num_rows=len(numbers), size_bytes=numbers.nbytes, input_files=None, exec_stats=None
    )


def is_source(operator: Any) -> bool:
    """Whether an operator of Ray Data makes the numbers."""
    return operator.name.startswith(f"Read{Pieces.__name__}")


class ShortQueue(BackpressurePolicy):
    """No more than so many numbers wait for the stage that reads, whatever memory there is."""

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Bytes of blocks that may be taken from the source's tasks now; None: no limit."""
        if not is_source(op):
            return None
        waiting = self._topology[op].total_enqueued_output_blocks()
        return max(0, _QUEUED - waiting) * _BLOCK_BYTES


class Guard(OutputBackpressureGuard):
    """Ray's way out of a standstill, which lets a block through to a stage that does nothing. One that
    waits for memory, or for the model to load, needs no number more than those that wait for it."""

    def should_unblock(self, op: Any) -> bool:
        return not is_source(op) and super().should_unblock(op)


class LeanDriver(ExecutionCallback):
    """Keeps the queue of numbers short, and no statistics of blocks: nobody asks for them."""

    def before_execution_starts(self, executor: Any) -> None:
        interval = executor._data_context.output_backpressure_guard_release_interval_s
        executor._output_backpressure_guard = Guard(
            executor._topology, executor._resource_manager, interval
        )

    def on_execution_step(self, executor: Any) -> None:
        for operator in executor._topology:
            getattr(operator, "_output_blocks_stats", []).clear()


def bound_memory(context: DataContext) -> None:
    """Make the driver's memory independent of how many blocks a dataset has."""
    policies = [*ENABLED_BACKPRESSURE_POLICIES, ShortQueue]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
    if LeanDriver not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(LeanDriver)
