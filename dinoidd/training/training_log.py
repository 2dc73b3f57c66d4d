"""`training.log`: a line an epoch, for people and grep.

The format is kept from version to version; fields are divided by ` | ` and always in this order:

    2026-11-23 20:41:07 | Epoch 3/20 | Train Loss: 1.2345 | Val Loss: 1.3456 | IoU: 42.59% |
    Best: 43.10% (epoch 2) | Accuracy: 81.20% | LR: 9.75e-05 | 2.4 images/s | 47m13s | 13h 7m left

(on one line). IoU is the mean over the classes present in the validation split, in per cent; `nan` stands
for what is not a number. Other lines begin with the time and ` - `.
"""

import re
from datetime import datetime

from dinoidd.log import duration
from dinoidd.storage import Store
from dinoidd.training.records import EpochRecord

NAME = "training.log"
_EPOCH = re.compile(r"[-\d]+ [:\d]+ \| Epoch (\d+)/")


def epoch_line(record: EpochRecord, epochs: int, seconds_left: float) -> str:
    """The epoch's line, without the time."""
    fields = (
        f"Epoch {record.epoch}/{epochs}",
        f"Train Loss: {record.train_loss:.4f}",
        f"Val Loss: {record.val_loss:.4f}",
        f"IoU: {100 * record.miou:.2f}%",
        f"Best: {100 * record.best_miou:.2f}% (epoch {record.best_epoch})",
        f"Accuracy: {100 * record.pixel_accuracy:.2f}%",
        f"LR: {record.learning_rate:.2e}",
        f"{record.images_per_second:.1f} images/s",
        duration(record.seconds),
        f"{duration(seconds_left)} left",
    )
    return " | ".join(fields)


class TrainingLog:
    """The lines of a run, earlier ones included; epochs that are done again are written once."""

    def __init__(self, output: Store, epoch: int) -> None:
        self._output = output
        earlier = output.read_bytes(NAME).decode().splitlines() if output.exists(NAME) else []
        self._lines = [line for line in earlier if _epoch_of(line) <= epoch]

    def note(self, text: str) -> None:
        """A line that is of no epoch."""
        self._add(f"{_now()} - {text}")

    def epoch(self, text: str) -> None:
        """A line of `epoch_line`."""
        self._add(f"{_now()} | {text}")

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._output.write_bytes(NAME, "".join(f"{line}\n" for line in self._lines).encode())


def _epoch_of(line: str) -> int:
    match = _EPOCH.match(line)
    return int(match[1]) if match else 0


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
