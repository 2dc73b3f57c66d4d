"""A training run from its configuration to its last file."""

import json
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from dinoidd.errors import ClusterError, DinoiddError
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import logger
from dinoidd.segment import cluster
from dinoidd.segment.pipeline import sentence_in
from dinoidd.train.allocator import allocator_environment
from dinoidd.train.cache import CacheRecord, read_cache_record
from dinoidd.train.extraction import extract, finished_cache
from dinoidd.train.kept import kept
from dinoidd.train.placement import Placement, place
from dinoidd.train.plan import Plan, checked, find
from dinoidd.train.relay import Follower, open_box
from dinoidd.train.run import (
    SUMMARY,
    TrainingRun,
    begin_run,
    check_same_run,
    read_run,
    with_its_weights,
)
from dinoidd.train.summary import summarise
from dinoidd.train.worker import Job, train_loop
from dinoidd.training.config import TrainConfig
from dinoidd.training.curves import write_curves
from dinoidd.training.metrics_file import read_metrics

RAY = "ray"  # the folder of Ray Train's own files
_RUN = "training"  # their name
_SETTINGS = {
    # Ray's own interval of 2 s would make every epoch last as long: a report waits for the next look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # An embedded Ray ends a process that is idle for a second. Images are read now and then, and
    # another process would take a core for a second each time.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run, and whether it was so before this call."""

    summary: dict[str, Any]
    finished_before: bool = False


def train(config: TrainConfig, *, address: str | None = None) -> TrainResult:
    """Train, or go on where the run in `config.output` stopped.

    Args:
        address: of a Ray cluster; None: RAY_ADDRESS, or an embedded Ray.

    Raises:
        DinoiddError: it cannot start or go on; everything done so far is kept.
    """
    found = find(config)
    run = read_run(found.output)
    if run is not None and run.summary is not None:
        plan = _same(run, checked(found), config)
        logger.info("%s was finished before: nothing to do", plan.output.uri)
        return TrainResult(summary=run.summary, finished_before=True)
    connect(address)
    placement = place(found.config)  # before labels are read and anything is written
    plan = checked(found)
    if run is not None:
        plan = _same(run, plan, config)
    plan.output.check_writable()
    plan = settled(plan, placement)
    if plan.config.uses_cache:
        finished_cache(plan)  # another's is refused before the output is taken
    if run is None:
        begin_run(plan)
    with terminated_as_interrupted(partial(kept, plan)):
        return TrainResult(summary=_run(plan, placement.waited()))


def _same(run: TrainingRun, plan: Plan, asked: TrainConfig) -> Plan:
    """The plan as the run was begun. Raises OutputError where it is another training's."""
    if asked.precision == "auto":
        plan = plan.with_precision(run.precision)
    plan = with_its_weights(run.identity, plan, asked)
    check_same_run(run, plan)
    return plan


def connect(address: str | None) -> None:
    """Join or start Ray, set for short epochs."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    cluster.connect(address)


def settled(plan: Plan, placement: Placement) -> Plan:
    """The plan with `auto` decided: as the cache has it, or as suits the devices."""
    config = replace(plan.config, use_gpu=placement.use_gpu)
    plan = replace(plan, config=config)
    if config.precision != "auto":
        return plan
    record = read_cache_record(plan.cache) if config.uses_cache else None
    return plan.with_precision(placement.precision if record is None else record.precision)


def _run(plan: Plan, placement: Placement) -> dict[str, Any]:
    started = time.monotonic()
    cache, extraction = None, 0.0
    if plan.config.uses_cache:
        there = finished_cache(plan)
        cache = there or extract(plan, placement)
        extraction = 0.0 if there else time.monotonic() - started
    try:
        _fit(plan, placement, cache)
    except KeyboardInterrupt:  # which ends the worker that draws
        if rows := read_metrics(plan.output):
            write_curves(rows, plan.config, plan.table, plan.output)
        raise
    summary = summarise(plan, cache, read_metrics(plan.output), extraction)
    plan.output.write_bytes(SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _fit(plan: Plan, placement: Placement, cache: CacheRecord | None) -> None:
    """All epochs that are not done, by Ray Train."""
    box = open_box()
    job = Job(plan=plan, cache=cache, threads=placement.threads, box=box)
    steps = len(plan.samples.train) // plan.config.batch_size
    logger.info(
        f"starting {placement.workers} worker{'s' if placement.workers > 1 else ''} on "
        f"{placement.device}"
    )
    with Follower(box, plan.config, steps), _interrupt_kept():
        try:
            _trainer(plan, placement, job).fit()
        except ray.train.TrainingFailedError as error:
            if failures := ray.get(box.failure.remote()):
                raise failures[0] from error
            raise _failure(error, plan.config) from error
    if failures := ray.get(box.failure.remote()):
        raise failures[0]


def _trainer(plan: Plan, placement: Placement, job: Job) -> TorchTrainer:
    filesystem, path = plan.output.child(RAY).arrow_path()
    return TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend=placement.backend),
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.use_gpu,
            accelerator_type=placement.accelerator_type,
        ),
        run_config=ray.train.RunConfig(
            name=_RUN,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=plan.config.max_failures),
            worker_runtime_env=_environment(placement),
        ),
    )


def _environment(placement: Placement) -> dict[str, Any] | None:
    """Ray initialises CUDA before a worker runs anything of ours, so that it cannot be set there."""
    return {"env_vars": allocator_environment()} if placement.use_gpu else None


@contextmanager
def _interrupt_kept() -> Iterator[None]:
    """Ray Train answers Ctrl-C by sys.exit(0), and keeps the signal. Let it be an interrupt again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, before)


def _failure(error: ray.train.TrainingFailedError, config: TrainConfig) -> Exception:
    """Why Ray gave up: our own sentence where a worker raised one, a sentence where processes died, and
    the error itself where it is a bug."""
    if told := sentence_in(error):
        return DinoiddError(told)
    failures = getattr(error, "worker_failures", {}).values()
    if not any(isinstance(f, ray.exceptions.RayActorError) for f in failures):
        return error
    reason = textwrap.shorten(str(error).strip().splitlines()[-1], 300, placeholder=" ...")
    return ClusterError(
        f"workers died more than max_failures={config.max_failures} times: {reason} What is done is "
        "kept: run the same command again to go on"
    )
