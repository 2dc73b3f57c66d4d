"""A training run in one worker: epochs of steps, each followed by validation."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dinoidd.models import Segmenter
from dinoidd.training.batch import Feed
from dinoidd.training.config import TrainConfig
from dinoidd.training.early_stopping import BestEpoch
from dinoidd.training.head import ClassifierHead
from dinoidd.training.linear import LinearLosses
from dinoidd.training.memory import out_of_memory_told, peak_bytes, reset_peak
from dinoidd.training.parameters import running_statistics, training_mode
from dinoidd.training.records import EpochRecord, Recorder
from dinoidd.training.sharding import free_gathered, is_sharded
from dinoidd.training.state import RunState, capture, restore
from dinoidd.training.step import CachedLosses, ImageLosses
from dinoidd.training.trainer import EpochSums, Trainer, Wrap
from dinoidd.training.validation import Validation, validate
from dinoidd.training.world import World


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """How a run ended."""

    epochs: int  # finished ones, of earlier attempts too
    best_epoch: int  # 0: no validation pixel could be judged
    best_miou: float
    stopped_early: bool


def fit(
    model: Segmenter | ClassifierHead,
    config: TrainConfig,
    feed: Feed[Any],
    world: World,
    recorder: Recorder,
    *,
    device: torch.device,
    state: RunState | None = None,
    save: Callable[[RunState, bool], None],
    wrap: Wrap | None = None,
) -> FitResult:
    """Train, and go on from `state` if there is one.

    Args:
        model: made ready by `prepare` for that many workers; the head of such a model trains on
            observations.
        feed: batches of images, or for the head lists of observations.
        save: gets the state after each epoch, and whether it is the best one. Called by every worker.
        wrap: makes workers average their gradients (DDP), and leaves their BatchNorms' statistics alone;
            None for one worker, left out for a sharded model, which does so itself.

    Raises:
        TrainingError: the loss is not a number, or memory is spent.
    """
    run = _Run(model, config, feed, world, device, state, wrap)
    batches = feed.train(run.epoch + 1, config.epochs - run.epoch)
    try:
        while run.goes_on:
            record = run.train_epoch(batches, recorder)
            recorder.epoch(record)
            save(run.capture(), record.best_epoch == record.epoch)
    finally:
        if hasattr(batches, "close"):
            batches.close()
    return FitResult(
        epochs=run.epoch,
        best_epoch=run.best.epoch,
        best_miou=run.best.miou,
        stopped_early=run.epoch < config.epochs,
    )


class _Run:
    """The parts of a run, and how many epochs it has finished."""

    def __init__(
        self,
        model: Segmenter | ClassifierHead,
        config: TrainConfig,
        feed: Feed[Any],
        world: World,
        device: torch.device,
        state: RunState | None,
        wrap: Wrap | None,
    ) -> None:
        self.epoch, self.best = 0, BestEpoch()
        self._config, self._feed, self._world, self._device = config, feed, world, device
        self._model = model
        self._losses = _losses(model, config, device)
        steps = config.epochs * feed.steps_per_epoch
        self._trainer = Trainer(self._losses, model, config, world, device, steps)
        if state is not None:
            with out_of_memory_told(config, device):
                restore(model, self._trainer.optimizer, state)
            self.epoch, self._trainer.step_number = state.epoch, state.step
            self.best = BestEpoch(state.best_epoch, state.best_miou)
        sharded = is_sharded(model)
        assert world.size == 1 or wrap or sharded, "nobody averages the workers' gradients"
        if wrap is not None and not sharded:
            self._trainer.wrap(wrap)

    @property
    def goes_on(self) -> bool:
        patience = self._config.patience
        return self.epoch < self._config.epochs and not self.best.exhausted(self.epoch, patience)

    def capture(self) -> RunState:
        return capture(
            self._model,
            self._trainer.optimizer,
            epoch=self.epoch,
            step=self._trainer.step_number,
            best_epoch=self.best.epoch,
            best_miou=self.best.miou,
            keep=self._world.rank == 0,
        )

    def train_epoch(self, batches: Iterator[Any], recorder: Recorder) -> EpochRecord:
        """An epoch of steps, and its validation."""
        started = time.perf_counter()
        reset_peak(self._device)
        training_mode(self._model)
        sums, rate = EpochSums(), 0.0
        for _ in range(self._feed.steps_per_epoch):
            record, seconds = self._trainer.step(batches, self.epoch + 1)
            recorder.step(record)
            sums.add(record, seconds)
            rate = record.learning_rate
        self._average_statistics()
        with out_of_memory_told(self._config, self._device):
            validation = self._validate()
        self.epoch += 1
        self.best.update(self.epoch, validation.miou)
        return self._record(sums, validation, rate, time.perf_counter() - started)

    def _validate(self) -> Validation:
        classes = _classes(self._model)
        found = validate(self._losses, self._feed.validation(), classes, self._world)
        free_gathered(self._model)
        return found

    def _average_statistics(self) -> None:
        """Workers have seen other images: BatchNorms that learn go on from the mean of all."""
        buffers = running_statistics(self._model)
        if self._world.size == 1 or not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers]).double().cpu().numpy()
        mean = torch.from_numpy(self._world.sum(flat) / self._world.size)
        for buffer, part in zip(buffers, mean.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view(buffer.shape))

    def _record(
        self, sums: EpochSums, validation: Validation, rate: float, seconds: float
    ) -> EpochRecord:
        return EpochRecord(
            epoch=self.epoch,
            step=self._trainer.step_number,
            train_loss=sums.loss / sums.steps,
            val_loss=validation.loss,
            confusion=validation.confusion,
            iou_K=validation.ious,
            miou=validation.miou,
            pixel_accuracy=validation.pixel_accuracy,
            learning_rate=rate,
            seconds=seconds,
            train_seconds=sums.seconds,
            images_per_second=sums.steps_per_second * self._config.batch_size,
            data_wait_share=sums.data_wait_share,
            peak_memory_bytes=peak_bytes(self._device),
            best_epoch=self.best.epoch,
            best_miou=self.best.miou,
            parts={name: value / sums.steps for name, value in sums.parts.items()},
            pictures=validation.pictures,
        )


def _losses(
    model: Segmenter | ClassifierHead, config: TrainConfig, device: torch.device
) -> nn.Module:
    if isinstance(model, ClassifierHead):
        return CachedLosses(model, config, device)
    if model.config.head == "linear":
        return LinearLosses(model, config, device)
    return ImageLosses(model, config, device)


def _classes(model: Segmenter | ClassifierHead) -> int:
    return model.classes if isinstance(model, ClassifierHead) else model.config.classes
