"""Training on what the frozen network saw once, beside training through the network in each epoch."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dinoidd.errors import ConfigError
from dinoidd.log import logger
from dinoidd.storage import Store
from dinoidd.training.config import TrainConfig
from dinoidd.training.metrics_file import read_metrics


@dataclass(frozen=True, kw_only=True)
class RunTimes:
    """One training, by its own records and by the clock on the wall."""

    rows: list[dict[str, Any]]  # of metrics.jsonl
    wall_seconds: float  # of the whole call, with all that is no epoch
    extraction_seconds: float = 0.0
    training_images: int = 0
    validation_images: int = 0

    @property
    def epoch_seconds(self) -> list[float]:
        """Of training and validation, epoch by epoch."""
        return [row["seconds"] for row in self.rows]

    @property
    def other_seconds(self) -> float:
        """Neither epochs nor extraction: processes start, checkpoints and curves are written."""
        return self.wall_seconds - self.extraction_seconds - sum(self.epoch_seconds)


@dataclass(frozen=True, kw_only=True)
class TrainSpeed:
    """Both trainings, on the same images from the same weights."""

    epochs: int  # of the whole run that is compared
    training_images: int
    validation_images: int
    uncached_epochs: list[float]  # seconds of each that was run
    cached_epochs: list[float]  # of all
    extraction_seconds: float
    uncached_other_seconds: float
    cached_other_seconds: float
    ray_seconds: float  # to start Ray itself, in neither
    train_loss_difference: float  # the largest one, of the epochs that both have run
    val_loss_difference: float
    pixels_judged_otherwise: int  # at least; by the confusion matrices of the same epochs

    @property
    def uncached_epoch(self) -> float:
        """The fastest one: what warms up in the first is not held against it."""
        return min(self.uncached_epochs)

    @property
    def cached_epoch(self) -> float:
        """The mean of all, its first one among them."""
        return sum(self.cached_epochs) / len(self.cached_epochs)

    @property
    def epoch_ratio(self) -> float:
        return self.uncached_epoch / self.cached_epoch

    @property
    def uncached_run(self) -> float:
        """Seconds, extrapolated from the epochs that were run."""
        return self.epochs * self.uncached_epoch

    @property
    def cached_run(self) -> float:
        """Seconds, measured, with the extraction."""
        return self.extraction_seconds + sum(self.cached_epochs)

    @property
    def run_ratio(self) -> float:
        return self.uncached_run / self.cached_run

    @property
    def uncached_wall(self) -> float:
        return self.uncached_other_seconds + self.uncached_run

    @property
    def cached_wall(self) -> float:
        return self.cached_other_seconds + self.cached_run

    @property
    def wall_ratio(self) -> float:
        """Of the whole runs with all that is no epoch; to the uncached one that of its few epochs."""
        return self.uncached_wall / self.cached_wall

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {name: getattr(self, name) for name in _FIGURES}


_FIGURES = (
    *("uncached_epoch", "cached_epoch", "epoch_ratio", "uncached_run", "cached_run", "run_ratio"),
    *("uncached_wall", "cached_wall", "wall_ratio"),
)


def measure_training(config: TrainConfig, *, uncached_epochs: int) -> TrainSpeed:
    """Train `config.epochs` epochs from a cache, then some without, into folders of `config.output`, a
    local folder.

    The learning rate follows a run's length. The losses of the uncached epochs are therefore held
    against a second cached run, of the same length, on the same cache.

    Raises:
        ConfigError: what is trained has no cache, or an augmentation makes the two differ.
    """
    from dinoidd.train.driver import connect

    if config.trained != "classifier" or config.augmentation.enabled:
        raise ConfigError(
            f"trained={config.trained}, augmentation {config.augmentation}: only the classifier's "
            "training without augmentation is the same with a cache and without"
        )
    started = time.perf_counter()
    connect(None)
    ray_seconds = time.perf_counter() - started
    config = replace(config, patience=None, cached=True, cache=f"{config.output}/cache")
    cached = _timed(config, "cached")
    short = replace(config, epochs=uncached_epochs)
    uncached = _timed(replace(short, cached=False, cache=None), "uncached")
    return compared(cached, uncached, _timed(short, "compared"), ray_seconds)


def _timed(config: TrainConfig, name: str) -> RunTimes:
    """Train into a folder of that name, with the product's own driver."""
    from dinoidd.train.driver import train

    config = replace(config, output=f"{config.output}/{name}")
    started = time.perf_counter()
    summary = train(config).summary
    times = RunTimes(
        rows=read_metrics(Store.open(config.output)),
        wall_seconds=time.perf_counter() - started,
        extraction_seconds=summary.get("extraction_seconds", 0.0),
        training_images=summary["training_images"],
        validation_images=summary["validation_images"],
    )
    logger.info(
        f"{name}: {len(times.rows)} epochs in {sum(times.epoch_seconds):.2f} s, extraction "
        f"{times.extraction_seconds:.1f} s, the rest {times.other_seconds:.1f} s"
    )
    return times


def compared(
    cached: RunTimes, uncached: RunTimes, same_epochs: RunTimes, ray_seconds: float
) -> TrainSpeed:
    """The figures of both.

    Args:
        cached: a whole run with its extraction.
        uncached: a shorter one.
        same_epochs: one as short, on the cache of the first.
    """
    return TrainSpeed(
        epochs=len(cached.rows),
        training_images=cached.training_images,
        validation_images=cached.validation_images,
        uncached_epochs=uncached.epoch_seconds,
        cached_epochs=cached.epoch_seconds,
        extraction_seconds=cached.extraction_seconds,
        uncached_other_seconds=uncached.other_seconds,
        cached_other_seconds=cached.other_seconds,
        ray_seconds=ray_seconds,
        train_loss_difference=_furthest(uncached, same_epochs, "train_loss"),
        val_loss_difference=_furthest(uncached, same_epochs, "val_loss"),
        pixels_judged_otherwise=_moved_pixels(uncached, same_epochs),
    )


def _furthest(one: RunTimes, other: RunTimes, name: str) -> float:
    pairs = zip(one.rows, other.rows, strict=True)
    return max(abs(a[name] - b[name]) for a, b in pairs)


def _moved_pixels(one: RunTimes, other: RunTimes) -> int:
    """Of all epochs: half of what the matrices differ by, as a pixel leaves one cell for another."""
    pairs = zip(one.rows, other.rows, strict=True)
    apart = sum(np.abs(np.subtract(a["confusion"], b["confusion"])).sum() for a, b in pairs)
    return int(apart) // 2


def format_speed(speed: TrainSpeed) -> str:
    """A table for a person; seconds depend on the machine, ratios on it less."""
    few, epochs = len(speed.uncached_epochs), speed.epochs
    return "\n".join(
        [
            f"{speed.training_images} training and {speed.validation_images} validation images, "
            "float32, the classifier trained",
            f"uncached epoch    {speed.uncached_epoch:9.3f} s (the fastest of {few})",
            f"cached epoch      {speed.cached_epoch:9.3f} s (the mean of {epochs})",
            f"extraction        {speed.extraction_seconds:9.3f} s (once)",
            f"one epoch         {speed.epoch_ratio:9.1f} times as fast",
            f"{f'{epochs} epochs':<18}{speed.run_ratio:9.1f} times as fast, with the extraction "
            f"({speed.uncached_run:.0f} s, extrapolated, to {speed.cached_run:.1f} s)",
            f"on the wall       {speed.wall_ratio:9.1f} times as fast, with all else too "
            f"({speed.uncached_wall:.0f} s to {speed.cached_wall:.1f} s)",
            f"all else          {speed.uncached_other_seconds:9.1f} s uncached, "
            f"{speed.cached_other_seconds:.1f} s cached: processes start, checkpoints and curves are "
            f"written; before it Ray starts in {speed.ray_seconds:.1f} s",
            f"loss curves differ by at most {speed.train_loss_difference:.1e} (training) and "
            f"{speed.val_loss_difference:.1e} (validation) in {few} epochs",
            f"confusion matrices differ by {speed.pixels_judged_otherwise:,} pixels",
        ]
    )
