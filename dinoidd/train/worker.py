"""One worker of a run: what Ray Train starts on each device."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from dinoidd.checkpoint.base import Base
from dinoidd.errors import DinoiddError, StorageError
from dinoidd.log import logger
from dinoidd.models import Segmenter
from dinoidd.train.cache import CacheRecord
from dinoidd.train.cached_feed import CachedFeed
from dinoidd.train.feed import RayFeed
from dinoidd.train.group import Group, averaging
from dinoidd.train.head_file import read_head
from dinoidd.train.plan import Plan
from dinoidd.train.relay import Nobody, RelayedRecorder, RelayedWarnings
from dinoidd.train.stages import load_plan_base
from dinoidd.train.states import last_state, save_state
from dinoidd.training.batch import Feed
from dinoidd.training.example_set import TrainingSet, ValidationSet
from dinoidd.training.fit import fit
from dinoidd.training.head import ClassifierHead
from dinoidd.training.order import Order
from dinoidd.training.parameters import constant_tensors
from dinoidd.training.prepare import prepare
from dinoidd.training.record import RunRecorder
from dinoidd.training.sharding import whole
from dinoidd.training.trainer import Wrap
from dinoidd.training.world import World


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker is told."""

    plan: Plan
    cache: CacheRecord | None
    threads: int  # of torch
    box: Any  # of dinoidd.train.relay


def train_loop(settings: dict[str, Any]) -> None:
    """Ray Train calls this in each worker, and again in new ones after a death.

    An error that would come again is kept for the driver. Ray restarts the workers after it, as after
    any error; they then end at once.
    """
    job: Job = settings["job"]
    if ray.get(job.box.failure.remote()):
        return
    try:
        with _warnings_relayed(job.box):
            _train(job)
    except DinoiddError as error:
        if not isinstance(error, StorageError):
            ray.get(job.box.fail.remote(error))
        raise


@contextmanager
def _warnings_relayed(box: Any) -> Iterator[None]:
    handler = RelayedWarnings(box)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _train(job: Job) -> None:
    config, device = job.plan.config, ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(job.threads)
    world = Group(device)
    model, base = _model(job, world, device)
    constants = {n: whole(t).cpu() for n, t in constant_tensors(model, config).items()}
    feed = _feed(job, world)
    state = last_state(job.plan, world)
    first_step = 0 if state is None else state.step
    recorder: RelayedRecorder | Nobody = Nobody()
    if world.rank == 0:
        files = RunRecorder(
            config,
            job.plan.table,
            job.plan.output,
            steps_per_epoch=feed.steps_per_epoch,
            epoch=0 if state is None else state.epoch,
            step=first_step,
            interactive=False,
        )
        recorder = RelayedRecorder(files, job.box, first_step)
    with closing(recorder):
        fit(
            model,
            config,
            feed,
            world,
            recorder,
            device=device,
            state=state,
            save=partial(save_state, job.plan, base, constants, recorder),
            wrap=_wrap(job, world, device),
        )


def _model(job: Job, world: World, device: torch.device) -> tuple[Segmenter | ClassifierHead, Base]:
    """What is trained, as the base has it."""
    config = job.plan.config
    if job.cache is None:
        model, base = load_plan_base(job.plan)
        return prepare(model, config, device, world.size), base
    head, base = read_head(job.plan)
    return head.to(device), base


def _feed(job: Job, world: World) -> Feed[Any]:
    plan, config = job.plan, job.plan.config
    if job.cache is not None:
        return CachedFeed(plan.cache, job.cache, config, world)
    order = Order.of(config, len(plan.samples.train))
    training = TrainingSet(
        samples=plan.samples.train, order=order, reader=plan.reader(validation=False)
    )
    validation = ValidationSet(samples=plan.samples.val, reader=plan.reader(validation=True))
    return RayFeed(training, validation, world, config.threads)


def _wrap(job: Job, world: World, device: torch.device) -> Wrap | None:
    if world.size == 1 or job.plan.config.sharding == "fsdp":
        return None
    return averaging(device)
