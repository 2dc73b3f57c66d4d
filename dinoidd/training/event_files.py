"""TensorBoard event files. A folder's are written in place, a bucket's copied there after each epoch."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from dinoidd.classes import ClassTable
from dinoidd.output.confusion_picture import draw_confusion
from dinoidd.storage import Store
from dinoidd.storage.uri import scheme_of
from dinoidd.training.config import TrainConfig
from dinoidd.training.epoch_picture import draw_picture
from dinoidd.training.key_bytes import printable
from dinoidd.training.records import EpochRecord, StepRecord

FOLDER = "tensorboard"


class EventFiles:
    """The x axis of everything is the optimiser's step, so that `step` cuts off what is done again."""

    def __init__(self, output: Store, config: TrainConfig, table: ClassTable, step: int) -> None:
        self._table = table
        self._output = output.child(FOLDER)
        self._local: TemporaryDirectory[str] | None = None
        if scheme_of(output.uri) == "file":
            self._folder = Path(self._output.uri)
        else:
            self._local = TemporaryDirectory(prefix="dinoidd-tensorboard-")
            self._folder = Path(self._local.name)
        self._writer = SummaryWriter(
            str(self._folder),
            purge_step=step + 1 if step else None,
            flush_secs=10,
            filename_suffix=f".from-step-{step}",
        )
        settings = json.dumps(asdict(config), indent=1).replace("\n", "\n\t")
        self._writer.add_text("config", f"\t{settings}", step)

    def step(self, record: StepRecord) -> None:
        self._scalars(
            record.step,
            {
                "train/loss": record.loss,
                **{f"train/loss_{name}": value for name, value in record.parts.items()},
                "train/learning_rate": record.learning_rate,
                "train/grad_norm": record.grad_norm,
                "speed/images_per_second": record.images_per_second,
                "speed/data_wait_share": record.data_wait_share,
            },
        )

    def epoch(self, record: EpochRecord) -> None:
        self._scalars(
            record.step,
            {
                "epoch": record.epoch,
                "train/epoch_loss": record.train_loss,
                "val/loss": record.val_loss,
                "val/mIoU": record.miou,
                "val/best_mIoU": record.best_miou,
                "val/pixel_accuracy": record.pixel_accuracy,
                "speed/epoch_seconds": record.seconds,
                "speed/memory_bytes": record.peak_memory_bytes,
                **{
                    f"iou/{name}": value
                    for name, value in zip(self._table.names, record.iou_K, strict=True)
                },
            },
        )
        title, subtitle = f"Epoch {record.epoch}", f"mIoU {100 * record.miou:.2f} %"
        matrix = draw_confusion(record.confusion, self._table, title, subtitle)
        self._picture("confusion", matrix, record.step)
        for picture in record.pictures:
            drawn = draw_picture(picture, self._table)
            self._picture(f"prediction/{printable(picture.key)}", drawn, record.step)
        self._copy()

    def close(self) -> None:
        self._writer.close()
        if self._local is not None:
            self._upload()
            self._local.cleanup()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        """Without NaN: an absent class has no point, and TensorBoard shows gaps badly."""
        for tag, value in values.items():
            if np.isfinite(value):
                self._writer.add_scalar(tag, value, step)

    def _picture(self, tag: str, image: Image.Image, step: int) -> None:
        self._writer.add_image(tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def _copy(self) -> None:
        self._writer.flush()
        if self._local is not None:
            self._upload()

    def _upload(self) -> None:
        for file in sorted(self._folder.iterdir()):
            self._output.upload(file, file.name)
