"""Small trainings: images of colored patches that can be learned, a feed in memory, a run."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from small_models import SMALL, drawn_model

from dinoidd.models import Segmenter, SegmenterConfig
from dinoidd.training.batch import Feed, ImageBatch
from dinoidd.training.config import LossConfig, TrainConfig
from dinoidd.training.fit import FitResult, fit
from dinoidd.training.head import ClassifierHead
from dinoidd.training.observation import Observation
from dinoidd.training.observe import observe
from dinoidd.training.prepare import prepare
from dinoidd.training.records import EpochRecord, StepRecord
from dinoidd.training.state import RunState
from dinoidd.training.trainer import Wrap
from dinoidd.training.world import Alone, World

CPU = torch.device("cpu")
SIZE, CLASSES, VOID = 64, SMALL.classes, 255
LOSS = LossConfig(points=128)
ROUNDING = 1e-4  # of a moment of the gradient


def config_of(**settings: Any) -> TrainConfig:
    """A configuration of few points; `points` and the like may be given by a whole LossConfig."""
    whole = {"data": "d", "output": "o", "preset": "tiny", "loss": LOSS, "batch_size": 4}
    return TrainConfig(**(whole | {"epochs": 3, "patience": None} | settings))


def drawn_batch(images: int, seed: int = 0, first: int = 0, view: int = 0) -> ImageBatch:
    """Images of 16-pixel patches, each in the color of its class, some of them void."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (CLASSES, 3))
    patches = rng.integers(0, CLASSES, (images, 4, 4))
    labels = patches.repeat(16, 1).repeat(16, 2).astype(np.uint8)
    noise = rng.integers(-20, 20, (*labels.shape, 3))
    pixels = (colors[labels] + noise).clip(0, 255).astype(np.uint8)
    labels[:, :8, :8] = VOID
    keys = [f"train/{first + i}" for i in range(images)]
    return ImageBatch(images_BSS3=pixels, labels_BSS=labels, keys=keys, views=[view] * images)


def part(batch: ImageBatch, index: np.ndarray, view: int) -> ImageBatch:
    return ImageBatch(
        images_BSS3=batch.images_BSS3[index],
        labels_BSS=batch.labels_BSS[index],
        keys=[batch.keys[i] for i in index],
        views=[view] * len(index),
    )


@dataclass
class MemoryFeed:
    """A Feed of images in memory, in an order drawn from the epoch."""

    config: TrainConfig
    train_images: ImageBatch
    val_images: ImageBatch
    world: World = field(default_factory=Alone)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_images.keys) // self.config.batch_size

    def train(self, first_epoch: int, epochs: int) -> Iterator[ImageBatch]:
        config = self.config
        for epoch in range(first_epoch, first_epoch + epochs):
            order = np.random.default_rng(epoch).permutation(len(self.train_images.keys))
            for step in range(self.steps_per_epoch):
                start = step * config.batch_size + self.world.rank * config.worker_batch
                for first in range(start, start + config.worker_batch, config.forward_batch):
                    yield part(
                        self.train_images, order[first : first + config.forward_batch], epoch
                    )

    def validation(self) -> Iterator[ImageBatch]:
        count = len(self.val_images.keys)
        for i in range(self.world.rank, count, self.world.size):
            yield part(self.val_images, np.array([i]), 0)


@dataclass
class CachedFeed:
    """The same images in the same order, as observations."""

    feed: MemoryFeed
    model: Segmenter

    def __post_init__(self) -> None:
        self._seen = self._observations(self.feed.train_images, validation=False)
        self._judged = self._observations(self.feed.val_images, validation=True)

    def _observations(self, batch: ImageBatch, *, validation: bool) -> dict[str, Observation]:
        config = self.feed.config
        return {o.key: o for o in observe(self.model, batch, config, validation=validation)}

    @property
    def steps_per_epoch(self) -> int:
        return self.feed.steps_per_epoch

    def train(self, first_epoch: int, epochs: int) -> Iterator[list[Observation]]:
        for batch in self.feed.train(first_epoch, epochs):
            yield [self._seen[key] for key in batch.keys]

    def validation(self) -> Iterator[list[Observation]]:
        for batch in self.feed.validation():
            yield [self._judged[key] for key in batch.keys]


@dataclass
class Records:
    """A Recorder that remembers."""

    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)

    def step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)

    def close(self) -> None:
        pass


@dataclass
class Run:
    """A finished run, and all it told."""

    result: FitResult
    model: Segmenter
    records: Records
    states: list[RunState]
    best: list[int]  # epochs that were saved as the best

    @property
    def losses(self) -> list[float]:
        """Of training and validation, epoch by epoch."""
        return [x for e in self.records.epochs for x in (e.train_loss, e.val_loss)]


def memory_feed(config: TrainConfig, images: int = 8, world: World | None = None) -> MemoryFeed:
    whole = drawn_batch(images + 3)
    indices = np.arange(images), np.arange(images, images + 3)
    train, val = (part(whole, index, 0) for index in indices)
    return MemoryFeed(config, train, val, world or Alone())


def ready_model(config: TrainConfig, architecture: SegmenterConfig = SMALL) -> Segmenter:
    return prepare(drawn_model(architecture), config, CPU)


def run(
    config: TrainConfig,
    *,
    cached: bool = False,
    model: Segmenter | None = None,
    feed: Feed[Any] | None = None,
    state: RunState | None = None,
    world: World | None = None,
    wrap: Wrap | None = None,
) -> Run:
    """Train a small model; the classifier on observations where `cached`."""
    model = model or ready_model(config)
    images = memory_feed(config, world=world)
    records, states, best = Records(), [], []

    def save(reached: RunState, is_best: bool) -> None:
        states.append(reached)
        best.extend([reached.epoch] * is_best)

    result = fit(
        ClassifierHead(model) if cached else model,
        config,
        feed or (CachedFeed(images, model) if cached else images),
        world or Alone(),
        records,
        device=CPU,
        state=state,
        save=save,
        wrap=wrap,
    )
    return Run(result, model, records, states, best)


def assert_same_states(ours: RunState, other: RunState, tolerance: float = 2e-5) -> None:
    """The same moments, and the same weights where those are more than rounding.

    A bias before a norm, say, has no gradient but rounding; AdamW makes of it steps as long as any.
    """
    assert ours.weights.keys() == other.weights.keys()
    assert ours.optimizer.keys() == other.optimizer.keys()
    for name, moment in other.optimizer.items():
        torch.testing.assert_close(ours.optimizer[name], moment, rtol=1e-3, atol=1e-5, msg=name)
    for name, weights in other.weights.items():
        squares = other.optimizer.get(f"exp_avg_sq.{name}", torch.ones(()))
        difference = (ours.weights[name] - weights).abs() * (squares > ROUNDING**2)
        assert difference.max() < tolerance, name
