"""What a run will do, checked as far as it can be without Ray and without loading weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dinoidd.checkpoint.model import read_model_info
from dinoidd.classes import ClassTable, load_class_table
from dinoidd.log import logger
from dinoidd.models import SegmenterConfig, preset
from dinoidd.models.config import resized
from dinoidd.storage import StorageOptions, Store, normalise, shown
from dinoidd.training.augmentation import Augmentation
from dinoidd.training.class_weights import weighted
from dinoidd.training.config import TrainConfig
from dinoidd.training.label_check import check_labels
from dinoidd.training.linear import for_head
from dinoidd.training.reading import ExampleReader
from dinoidd.training.samples import Sample, Samples, find_samples, storage_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's configuration, with nothing left open but the precision, and its data. Picklable."""

    config: TrainConfig
    table: ClassTable
    model: SegmenterConfig
    weights: str  # identity of the base: a sha256, or how random ones are drawn
    samples: Samples
    encoding: str  # of the label images
    pixels: Mapping[int, int]  # of each class in the training labels that were looked at

    @property
    def options(self) -> StorageOptions:
        return storage_of(self.config)

    @property
    def output(self) -> Store:
        return Store.open(self.config.output, self.options)

    @property
    def cache(self) -> Store:
        """The folder of the cache, whether the run has one or not."""
        place = self.config.cache
        return self.output.child("cache") if place is None else Store.open(place, self.options)

    @property
    def image_size(self) -> int:
        return self.config.image_size or self.model.image_size

    def reader(self, *, validation: bool) -> ExampleReader:
        """Validation images are never augmented."""
        augmentation = self.config.augmentation
        augmented = augmentation.enabled and not validation
        return ExampleReader(
            table=self.table,
            encoding=self.encoding,
            image_size=self.image_size,
            augmentation=Augmentation(augmentation, self.config.seed) if augmented else None,
            options=self.options,
        )

    def identity(self) -> dict[str, Any]:
        """What is learned from: base, data, and how images are prepared; for runs and caches alike."""
        return {
            "model": self.model.name,
            "model weights": self.weights,
            "class table": f"{self.table.name} {_digest(self.table.stored())}",
            "label encoding": self.encoding,
            "image size": self.image_size,
            "data": shown(self.config.data),
            "training images": _listed(self.samples.train),
            "validation images": _listed(self.samples.val),
        }

    def with_precision(self, precision: str) -> "Plan":
        return replace(self, config=replace(self.config, precision=precision))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of a run before its labels are looked at."""

    config: TrainConfig  # with absolute paths
    table: ClassTable
    model: SegmenterConfig
    weights: str
    samples: Samples

    @property
    def output(self) -> Store:
        return Store.open(self.config.output, storage_of(self.config))


def make_plan(config: TrainConfig) -> Plan:
    """Look at base, classes and data.

    Raises:
        DinoiddError: what cannot be trained on, in one sentence.
    """
    return checked(find(config))


def find(config: TrainConfig) -> Found:
    """The first part of `make_plan`: base, class table, and the images by their names."""
    asked, config = config, _absolute(config)
    options = storage_of(config)
    table = load_class_table(config.classes)
    model, weights = _base(config, table, options)
    config = for_head(config, model, asked)
    samples = find_samples(config, table)
    return Found(config=config, table=table, model=model, weights=weights, samples=samples)


def checked(found: Found) -> Plan:
    """The second part of `make_plan`: labels are read."""
    config, samples = found.config, found.samples
    _warn_of_warmup(config, len(samples.train))
    check = check_labels(config, found.table, samples)
    count = f"{len(samples.train):,} training and {len(samples.val):,} validation images"
    unread = f", of which {check.broken:,} or more cannot be read" if check.broken else ""
    logger.info(f"{count}{unread}; {check.sentence}")
    loss = weighted(config.loss, check.pixels, len(found.table))
    size = config.image_size or found.model.image_size
    return Plan(
        config=replace(config, image_size=size, loss=loss),
        table=found.table,
        model=found.model,
        weights=found.weights,
        samples=samples,
        encoding=check.encoding,
        pixels=check.pixels,
    )


def _warn_of_warmup(config: TrainConfig, images: int) -> None:
    """Tell where the learning rate never gets to what was asked."""
    steps, warmup = images // config.batch_size * config.epochs, config.optimizer.warmup_steps
    if warmup >= steps:
        logger.warning(
            f"optimizer.warmup_steps={warmup}, but {config.epochs} epochs of {images:,} images are "
            f"{steps:,} steps: the learning rate ends below optimizer.learning_rate; train for more "
            "epochs, or set fewer warm-up steps"
        )


def _absolute(config: TrainConfig) -> TrainConfig:
    """Workers may have another working directory."""
    classes = Path(config.classes)
    return replace(
        config,
        data=normalise(config.data),
        output=normalise(config.output),
        cache=None if config.cache is None else normalise(config.cache),
        checkpoint=None if config.checkpoint is None else normalise(config.checkpoint),
        classes=str(classes.resolve()) if classes.is_file() else config.classes,
        cached=config.uses_cache,
    )


def _base(
    config: TrainConfig, table: ClassTable, options: StorageOptions
) -> tuple[SegmenterConfig, str]:
    """The network for these classes, and which weights it begins with."""
    if config.checkpoint is None:
        assert config.preset is not None
        drawn = f"random, seed {config.seed}, torch {torch.__version__}"
        return resized(preset(config.preset), classes=len(table)), drawn
    info = read_model_info(config.checkpoint, options)
    if info.table.names == table.names:
        return info.config, info.weights_sha256
    logger.info(
        f"{shown(config.checkpoint)} has the classes of '{info.table.name}': a classifier for those of "
        f"'{table.name}' is drawn anew, seed {config.seed}"
    )
    drawn = f"{info.weights_sha256}, classifier drawn from seed {config.seed}"
    return resized(info.config, classes=len(table)), drawn


def _listed(samples: list[Sample]) -> str:
    """How many they are, and a digest of which."""
    return f"{len(samples):,} {_digest([asdict(sample) for sample in samples])}"


def told_of_files(different: list[str]) -> str:
    """What it means that images differ, as a sentence to add; empty where none do."""
    if not any(" images was " in told for told in different):
        return ""
    return (
        "Images or labels were added, removed or written anew; a copy counts as new unless it keeps "
        "its files' times, as cp -a and rsync -a do. "
    )


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
