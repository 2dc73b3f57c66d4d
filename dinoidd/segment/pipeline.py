"""The Ray Data pipeline of a run: read images -> segment -> write rows.

One Ray Data block is one chunk of the manifest, all the way: blocks are never split or joined, so a
task that Ray runs again after a death does exactly the same rows and replaces exactly the same file.
"""

import json
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from dinoidd.errors import ClusterError, DinoiddError, OutageError, StorageError
from dinoidd.segment.cluster import ACTOR_CALLS, ACTOR_CPUS, READ_CPUS, WRITE_CPUS, Placement
from dinoidd.segment.flow import follow
from dinoidd.segment.metrics import ModelMetrics
from dinoidd.segment.pieces import COLUMN, bound_memory, numbered_blocks
from dinoidd.segment.stages import ReadImages, SegmentImages, WriteRows
from dinoidd.segment.tally import Tally
from dinoidd.segment.tries_actor import RemoteTries

# Deaths that one piece of work survives. Without an end, work that kills its process would stop the
# run silently; so there is one, except where the stages count for themselves (see `Tries`). (Ray 2.60
# has no other way to say it than by arguments that it calls deprecated.)
_RETRIES, _ENDLESS = 5, -1
TASK_RETRIES = {"max_retries": _RETRIES}
_SENTENCE = re.compile(rf"^{DinoiddError.__module__}\.\w+: (.+)$", re.MULTILINE)


def run_chunks(
    chunks: Sequence[int],
    *,
    read: ReadImages,
    segment: dict[str, Any],
    write: WriteRows,
    placement: Placement,
    model: type = SegmentImages,
) -> Iterator[tuple[int, Tally]]:
    """Do the given chunks, and yield each one's number and tally when its file is written.

    An image that kills or hangs its process costs itself alone; `read.image_timeout` bounds both stages.

    Args:
        segment: arguments of `model`; each actor makes its own.

    Raises:
        DinoiddError: what a stage raised that is not one image's fault.
    """

    def write_rows(table: pa.Table) -> dict[str, Any]:
        chunk = table.column("image_id")[0].as_py() // write.layout.rows_per_chunk
        return {"chunk": chunk, "tally": write(table).to_dict()}

    tries = RemoteTries(read.image_timeout)
    done = run_stages(
        chunks,
        read=replace(read, tries=tries),
        model=model,
        arguments=segment
        | {"image_timeout": read.image_timeout, "tries": tries, "metering": ModelMetrics()},
        write=write_rows,
        placement=placement,
        retries=_ENDLESS,
    )
    try:
        for result in done:
            yield result["chunk"], Tally.from_dict(result["tally"])
    finally:
        tries.close()


def run_stages(
    pieces: Sequence[int],
    *,
    read: Callable[[int], pa.Table],
    model: type,
    arguments: dict[str, Any],
    write: Callable[[pa.Table], dict[str, Any]],
    placement: Placement,
    retries: int = _RETRIES,
) -> Iterator[dict[str, Any]]:
    """Do pieces of work, each a table all the way: read in a task -> model in an actor -> write in a
    task. What `write` returned for a piece, plain values, is yielded when it is done, in any order.

    Args:
        read: a piece's number to its rows.
        model: a class whose objects turn rows into rows; each actor makes one of the `arguments`.
        retries: deaths of processes that `read`, and that `model`, survives with one piece; -1: any
            number, for stages that count them.

    Raises:
        DinoiddError: what a stage raised that is not one image's fault.
    """
    configure()

    def read_rows(batch: dict[str, np.ndarray]) -> pa.Table:
        return read(batch[COLUMN].item())

    def write_rows(table: pa.Table) -> dict[str, list[str]]:
        return {"result": [json.dumps(write(table))]}

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = (
            numbered_blocks(pieces)
            .map_batches(read_rows, batch_size=None, num_cpus=READ_CPUS, max_retries=retries)
            .map_batches_internal(  # map_batches refuses whole blocks where GPUs are asked for
                model,
                batch_size=None,
                batch_format="pyarrow",
                fn_constructor_kwargs=arguments,
                compute=_pool(placement, len(pieces)),
                num_cpus=ACTOR_CPUS,
                num_gpus=placement.num_gpus,
                max_restarts=retries,
                max_task_retries=retries,
                **placement.remote_args,
            )
            .map_batches(
                write_rows,
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=WRITE_CPUS,
                **TASK_RETRIES,
            )
        )
    dataset.set_name(model.__name__)  # on the dashboard
    yield from _results(dataset)


def _pool(placement: Placement, pieces: int) -> ActorPoolStrategy:
    """What there is at the start stays; nodes that join later get an actor for each GPU."""
    return ActorPoolStrategy(
        min_size=placement.actors,
        max_size=max(placement.actors, min(placement.most, pieces)),
        max_concurrent_calls_per_actor=ACTOR_CALLS,
    )


def _results(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    # Fetched ahead, each would come when the next is there: a piece late, but for the last.
    tables = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for table in tables:
            for result in table.column("result").to_pylist():
                yield json.loads(result)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error


def user_error(error: ray.exceptions.RayError) -> Exception:
    """What went wrong in a worker: one sentence where it is no bug of ours.

    Ray Data hands on the text of what was raised, not the exception; the outermost stands last.
    """
    if told := sentence_in(error):
        if f"{OutageError.__name__}: {told}" in str(error):
            return OutageError("unreachable", told)
        return DinoiddError(told)
    return error if isinstance(error, ray.exceptions.RayTaskError) else _death(error)


def sentence_in(error: Exception) -> str | None:
    """The message of the outermost DinoiddError in the text of one that Ray handed on, if any."""
    sentences = _SENTENCE.findall(str(error))
    return sentences[-1] if sentences else None


def _death(error: ray.exceptions.RayError) -> ClusterError:
    """A process that died more often than it may; the last line says why, as far as Ray knows."""
    reason = textwrap.shorten(str(error).strip().splitlines()[-1], 300, placeholder=" ...")
    return ClusterError(
        f"a process of the run died and did not recover: {reason} What is done is kept: run the same "
        "command again to resume, with a smaller --batch-size where memory was short"
    )


def configure(*, in_order: bool = False) -> None:
    """Have Ray Data run a dataset as the stages need it: blocks stay whole, nothing is printed."""
    context = DataContext.get_current()
    context.target_max_block_size = None  # one chunk stays one block
    context.execution_options.preserve_order = in_order
    context.retried_map_errors = [StorageError.__name__]  # of the output and the manifest
    context.max_map_retries = 4  # after 1, 2, 4 and 8 seconds
    bound_memory(context)
    follow(context)
    context.enable_progress_bars = False  # the run shows images, not Ray's blocks
    # what it logs as an error is raised as well, and told once
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
