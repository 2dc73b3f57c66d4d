"""What a run writes down for people: event files, log, metrics, curves, and progress on the screen."""

import time

from dinoidd import __version__
from dinoidd.classes import ClassTable
from dinoidd.storage import Store
from dinoidd.training.config import TrainConfig
from dinoidd.training.curves import run_title, write_curves
from dinoidd.training.event_files import EventFiles
from dinoidd.training.metrics_file import MetricsFile, epoch_row
from dinoidd.training.mlflow_run import MlflowRun
from dinoidd.training.progress import Progress
from dinoidd.training.records import EpochRecord, StepRecord
from dinoidd.training.training_log import TrainingLog, epoch_line

_SECONDS_BETWEEN_CURVES = 20.0  # a page takes half a second, a cached epoch may take one


class RunRecorder:
    """The Recorder of the first worker.

    A run that goes on from an epoch forgets whatever was written after it, so that an epoch which was
    done twice appears once.
    """

    def __init__(
        self,
        config: TrainConfig,
        table: ClassTable,
        output: Store,
        *,
        steps_per_epoch: int,
        epoch: int = 0,
        step: int = 0,
        interactive: bool | None = None,
    ) -> None:
        """Begin, or go on after `epoch` epochs of altogether `step` optimiser steps.

        Raises:
            StorageError, OutputError: the output cannot be written, or holds something else.
            ConfigError: MLflow is asked for and not installed.
        """
        self._config, self._table, self._output = config, table, output
        self._mlflow = None if config.mlflow is None else MlflowRun(config.mlflow, output, config)
        self._metrics = MetricsFile(output, epoch)
        self._log = TrainingLog(output, epoch)
        self._events = EventFiles(output, config, table, step)
        self._drawn, self._undrawn = time.monotonic(), False
        steps = config.epochs * steps_per_epoch
        self._progress = Progress(steps, step, config.epochs, interactive=interactive)
        self._log.note(
            f"resumed after epoch {epoch}" if epoch else self._beginning(steps_per_epoch)
        )

    def step(self, record: StepRecord) -> None:
        self._events.step(record)
        self._progress.step(record)

    def epoch(self, record: EpochRecord) -> None:
        row = epoch_row(record, self._table)
        line = epoch_line(record, self._config.epochs, self._progress.seconds_left(record.step))
        self._metrics.add(row)
        self._log.epoch(line)
        self._progress.say(line)
        self._events.epoch(record)
        self._undrawn = True
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN_CURVES:
            self._draw()
        if self._mlflow is not None:
            self._mlflow.epoch(row)

    def close(self) -> None:
        self._progress.close()
        self._events.close()
        if self._mlflow is not None:
            self._mlflow.close()
        if self._undrawn:
            self._draw()

    def _draw(self) -> None:
        write_curves(self._metrics.rows, self._config, self._table, self._output)
        self._drawn, self._undrawn = time.monotonic(), False

    def _beginning(self, steps_per_epoch: int) -> str:
        config = self._config
        return (
            f"dinoidd {__version__}: {run_title(config)}, {config.epochs} epochs of "
            f"{steps_per_epoch:,} steps of {config.batch_size} images, learning rate "
            f"{config.optimizer.learning_rate:g}, {config.loss.kind} loss, seed {config.seed}"
        )
