"""`metrics.jsonl`: one line of JSON an epoch, everything but the pictures."""

import json
import math
from typing import Any

from dinoidd.classes import ClassTable
from dinoidd.errors import OutputError
from dinoidd.storage import Store
from dinoidd.training.records import EpochRecord

NAME = "metrics.jsonl"
_PLAIN = (
    *("epoch", "step", "train_loss", "val_loss", "miou", "pixel_accuracy", "learning_rate"),
    *("seconds", "train_seconds", "images_per_second", "data_wait_share", "peak_memory_bytes"),
    *("best_epoch", "best_miou"),
)


def epoch_row(record: EpochRecord, table: ClassTable) -> dict[str, Any]:
    """The record as JSON: IoU by class name, what is not a number as null."""
    row: dict[str, Any] = {name: _number(getattr(record, name)) for name in _PLAIN}
    row["parts"] = {name: _number(value) for name, value in record.parts.items()}
    row["iou"] = {n: _number(v) for n, v in zip(table.names, record.iou_K.tolist(), strict=True)}
    row["absent"] = [name for name, value in row["iou"].items() if value is None]
    row["confusion"] = record.confusion.tolist()
    return row


class MetricsFile:
    """The epochs of a run so far; on a resumed one, those after the epoch it goes on from are gone."""

    def __init__(self, output: Store, epoch: int) -> None:
        self._output = output
        self.rows = [row for row in read_metrics(output) if row["epoch"] <= epoch]
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        self.rows = [r for r in self.rows if r["epoch"] < row["epoch"]] + [row]
        self._write()

    def _write(self) -> None:
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in self.rows]
        self._output.write_bytes(NAME, "".join(lines).encode())


def read_metrics(output: Store) -> list[dict[str, Any]]:
    """The epochs of a run's folder; none where it has no file of them.

    Raises:
        OutputError: a line is no JSON of an epoch.
    """
    if not output.exists(NAME):
        return []
    try:
        rows = [json.loads(line) for line in output.read_bytes(NAME).splitlines()]
        return sorted(rows, key=lambda row: row["epoch"])
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{output.uri_of(NAME)} is not of a training run ({error}): choose another output"
        ) from error


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
