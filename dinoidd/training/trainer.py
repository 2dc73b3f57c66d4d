"""Optimiser steps: micro-batches forward and backward, one clipped update."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dinoidd.errors import DivergedError
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import TrainConfig
from dinoidd.training.memory import out_of_memory_told
from dinoidd.training.observation import Observation
from dinoidd.training.optimizer import make_optimizer, set_rates
from dinoidd.training.records import StepRecord
from dinoidd.training.schedule import rate_factor
from dinoidd.training.sharding import whole
from dinoidd.training.step import Losses
from dinoidd.training.world import World

Wrap = Callable[[nn.Module], nn.Module]


@dataclass(kw_only=True)
class EpochSums:
    """What an epoch's steps add up to."""

    steps: int = 0
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    _speeds: list[tuple[float, float]] = field(
        default_factory=list
    )  # seconds, share waited for data

    def add(self, record: StepRecord, seconds: float) -> None:
        self.steps += 1
        self.loss += record.loss
        for name, value in record.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value
        self.seconds += seconds
        if math.isfinite(record.images_per_second):
            self._speeds.append((seconds, record.data_wait_share))

    @property
    def steps_per_second(self) -> float:
        """Without the step that a process begins with, where there is another."""
        if not self._speeds:
            return self.steps / self.seconds
        return len(self._speeds) / sum(s for s, _ in self._speeds)

    @property
    def data_wait_share(self) -> float:
        """Of the same steps' time; NaN where there is only that one."""
        if not self._speeds:
            return math.nan
        return sum(s * share for s, share in self._speeds) / sum(s for s, _ in self._speeds)


class Trainer:
    """One worker's part in every step; the gradient is the mean over the global batch's images."""

    def __init__(
        self,
        losses: nn.Module,
        model: nn.Module,
        config: TrainConfig,
        world: World,
        device: torch.device,
        total_steps: int,
    ) -> None:
        """`losses` gives a batch's Losses; `model` inside of it has the parameters and their names."""
        self.losses, self.model = losses, model
        self.optimizer = make_optimizer(model, config.optimizer)
        self.step_number = 0  # steps made
        self._first = True  # what the first step of a process takes is start-up
        self._config, self._world, self._device = config, world, device
        self._total_steps = total_steps
        self._micro_batches = config.worker_batch // config.forward_batch
        self._trained = [p for p in model.parameters() if p.requires_grad]

    def wrap(self, wrap: Wrap) -> None:
        """Let the workers' gradients be averaged, by DDP."""
        self.losses = wrap(self.losses)

    @property
    def next_rate(self) -> float:
        """The learning rate of the next step, before the groups' shares."""
        settings = self._config.optimizer
        factor = rate_factor(self.step_number, self._total_steps, settings.warmup_steps)
        return settings.learning_rate * factor

    def step(self, batches: Iterator[Any], epoch: int) -> tuple[StepRecord, float]:
        """Make a step of the next micro-batches; its record and its seconds.

        Raises:
            TrainingError: the loss or the gradient is not a number, or memory is spent.
        """
        started, waited = time.perf_counter(), 0.0
        keys: list[list[str]] = []
        sums: list[dict[str, Tensor]] = []
        for index in range(self._micro_batches):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            keys.append(keys_of(batch))
            with out_of_memory_told(self._config, self._device):
                sums.append(self._accumulate(batch, is_last=index == self._micro_batches - 1))
        total = self._totals(sums, epoch, keys)
        rate = self.next_rate
        norm = self._update(rate, epoch, [key for some in keys for key in some])
        seconds = time.perf_counter() - started
        return self._record(total, epoch, rate, norm, seconds, waited), seconds

    def _accumulate(self, batch: Any, *, is_last: bool) -> dict[str, Tensor]:
        """Add a micro-batch's gradient; the sums of its losses, which nobody has waited for yet."""
        with self._synchronised(is_last):
            losses: Losses = self.losses(batch)
            total = losses.total_B.sum()
            # DDP and FSDP divide the workers' sum by their number
            (total * (self._world.size / self._config.batch_size)).backward()
        parts = {name: values_B.sum() for name, values_B in losses.parts.items()}
        return {"loss": total.detach(), **parts}

    def _totals(
        self, sums: list[dict[str, Tensor]], epoch: int, keys: list[list[str]]
    ) -> dict[str, float]:
        """The micro-batches' losses added up. Here a GPU is waited for, once a step."""
        totals: dict[str, float] = {}
        for parts, some in zip(sums, keys, strict=True):
            values = torch.stack(list(parts.values())).tolist()
            self._require_finite(values[0], "loss", epoch, some)
            for name, value in zip(parts, values, strict=True):
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def _synchronised(self, is_last: bool) -> AbstractContextManager:
        """DDP's workers exchange gradients with the step's last micro-batch only.

        FSDP's do with each one: it would keep whole gradients until then, and has room for parts.
        """
        if isinstance(self.losses, DistributedDataParallel) and not is_last:
            return self.losses.no_sync()
        return nullcontext()

    def _update(self, rate: float, epoch: int, keys: list[str]) -> float:
        norm = nn.utils.clip_grad_norm_(self._trained, self._config.optimizer.clip_norm)
        length = float(whole(norm))
        self._require_finite(length, "gradient's norm", epoch, keys)
        set_rates(self.optimizer, rate)
        with out_of_memory_told(self._config, self._device):  # the first step makes the moments
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        return length

    def _require_finite(self, value: float, what: str, epoch: int, keys: list[str]) -> None:
        if math.isfinite(value):
            return
        settings = self._config.optimizer
        raise DivergedError(
            f"the {what} is {value} in epoch {epoch}, step {self.step_number + 1}, on "
            f"{', '.join(keys)}: lower optimizer.learning_rate (now {settings.learning_rate:g}), "
            f"raise optimizer.warmup_steps (now {settings.warmup_steps}), or set precision=float32"
        )

    def _record(
        self,
        sums: dict[str, float],
        epoch: int,
        rate: float,
        norm: float,
        seconds: float,
        waited: float,
    ) -> StepRecord:
        images, workers = self._config.batch_size, self._world.size
        *totals, waits = self._world.sum(np.array([*sums.values(), waited / seconds]))
        means = dict(zip(sums, (float(total) / images for total in totals), strict=True))
        first, self._first = self._first, False
        return StepRecord(
            step=self.step_number,
            epoch=epoch,
            loss=means.pop("loss"),
            parts=means,
            learning_rate=rate,
            grad_norm=norm,
            images_per_second=math.nan if first else images / seconds,
            data_wait_share=math.nan if first else float(waits) / workers,
        )


def keys_of(batch: ImageBatch | list[Observation]) -> list[str]:
    """The frames of a batch."""
    return batch.keys if isinstance(batch, ImageBatch) else [o.key for o in batch]
