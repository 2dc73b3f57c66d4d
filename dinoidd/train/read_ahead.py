"""Groups of images read ahead of a training worker by Ray Data: in order, not too far, and quietly.

Ray Data's scheduling loop runs in the worker's process, beside a training whose threads wait for each
other. On a machine of few cores, a core that is taken from the training costs more than itself: while
Ray read as far ahead as memory allows, an epoch of `tiny` took four times as long, and while its loop
ran without a pause, twice as long.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback

from dinoidd.segment.cluster import READ_CPUS
from dinoidd.segment.pieces import COLUMN, PIECES_PER_TASK, is_source, numbered_blocks
from dinoidd.segment.pipeline import TASK_RETRIES, configure

# One task of the source. Of two, the second one's numbers, which have to wait for the first one's,
# could fill the source's queue while the first is not there yet: then neither would go on.
MOST_GROUPS = PIECES_PER_TASK

_MOST_AHEAD = "dinoidd.most_groups_ahead"  # in the data set's context
_LEAST_AHEAD = 4
_STEP_SECONDS = 0.1


class BoundedReadAhead(BackpressurePolicy):
    """No more than so many groups are being read or lie ready; a few more are on their way out."""

    def can_add_input(self, op: Any) -> bool:
        """Whether an operator may begin with one more group."""
        ahead = self._topology[op].total_enqueued_output_blocks() + op.num_active_tasks()
        return is_source(op) or ahead < self._data_context.get_config(_MOST_AHEAD)


class PacedLoop(ExecutionCallback):
    """While groups lie ready and none is being read, Ray looks ten times a second what there is to do.

    Ray 2.60 waits only for tasks that run: where all are held back, it looks without a pause.
    """

    def on_execution_step(self, executor: Any) -> None:
        reading = any(op.num_active_tasks() for op in executor._topology if not is_source(op))
        if not reading and not executor._consumer_idling():
            time.sleep(_STEP_SECONDS)


def most_ahead(workers: int) -> int:
    """How many groups each of the training's workers may have read ahead: its share of the CPUs."""
    cpus = ray.cluster_resources().get("CPU", 0.0)
    return max(_LEAST_AHEAD, int(cpus / READ_CPUS / workers))


def read_ahead(groups: int, read: Callable[[int], pa.Table], most: int) -> Iterator[pa.Table]:
    """The tables of groups 0, 1, ..., in order, up to about `most` of them before they are asked for.

    Args:
        groups: MOST_GROUPS at most.

    Raises:
        RayError: see `user_error`.
    """
    if groups > MOST_GROUPS:
        raise ValueError(f"{groups} groups: {MOST_GROUPS} at most can be read in order")

    def read_group(batch: dict[str, np.ndarray]) -> pa.Table:
        return read(batch[COLUMN].item())

    configure(in_order=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = numbered_blocks(range(groups)).map_batches(
            read_group, batch_size=None, num_cpus=READ_CPUS, **TASK_RETRIES
        )
    _hold_back(dataset.context, most)
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)


def _hold_back(context: DataContext, most: int) -> None:
    """Of one data set: it has a context of its own."""
    key = ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY
    context.set_config(key, [*context.get_config(key), BoundedReadAhead])
    context.set_config(_MOST_AHEAD, most)
    context.execution_no_progress_timeout_s = -1  # none: it may rest through a long validation
    context.custom_execution_callback_classes = [
        *context.custom_execution_callback_classes,
        PacedLoop,
    ]
