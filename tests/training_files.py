"""Small labelled data sets, for the tests of the training's data."""

import json
from pathlib import Path

import numpy as np
from evaluation_files import save, street

from dinoidd.classes import IDD, ClassTable
from dinoidd.training.augmentation import Augmentation
from dinoidd.training.config import AugmentationConfig, TrainConfig
from dinoidd.training.example_set import TrainingSet, ValidationSet
from dinoidd.training.local_feed import LocalFeed
from dinoidd.training.order import Order
from dinoidd.training.reading import ExampleReader
from dinoidd.training.samples import find_samples, storage_of
from dinoidd.training.world import Alone

SHAPE = (36, 64)
SIZE = 32  # of the model's square


def config_of(root: Path | str, **more: object) -> TrainConfig:
    """A configuration over a data set; nothing is trained with it."""
    settings = {"output": "out", "preset": "tiny", "batch_size": 4, "threads": 2} | more
    return TrainConfig(data=str(root), **settings)


def photograph(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def idd_image(root: Path, split: str, name: str, seed: int, shape: tuple[int, int] = SHAPE) -> Path:
    return save(
        root / "leftImg8bit" / split / "0" / f"{name}_leftImg8bit.png", photograph(seed, shape)
    )


def idd_label(root: Path, split: str, name: str, ids: np.ndarray) -> Path:
    return save(root / "gtFine" / split / "0" / f"{name}_gtFine_labellevel3Ids.png", ids)


def idd_polygons(root: Path, split: str, name: str) -> Path:
    """Sky over road, and a car."""
    height, width = SHAPE
    boxes = {"sky": (0, 0, width, 17), "road": (0, 18, width, height), "car": (9, 19, 30, 30)}
    objects = [
        {"label": label, "polygon": [[x, y], [right, y], [right, bottom], [x, bottom]]}
        for label, (x, y, right, bottom) in boxes.items()
    ]
    path = root / "gtFine" / split / "0" / f"{name}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgWidth": width, "imgHeight": height, "objects": objects}))
    return path


def idd_set(root: Path, train: int = 10, val: int = 3) -> Path:
    """Images 000 and on in IDD's layout, labelled in the official encoding."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            idd_image(root, split, f"{i:03d}", i)
            idd_label(root, split, f"{i:03d}", street(i, SHAPE))
    return root


def road255(ids: np.ndarray) -> np.ndarray:
    """A label in the other encoding: road is 255, and void is not told apart from it."""
    return np.where(ids == 0, 255, ids).astype(np.uint8)


def break_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:80])


def reader_of(
    table: ClassTable = IDD, encoding: str = "official", config: TrainConfig | None = None
) -> ExampleReader:
    augmentation = None
    if config is not None and config.augmentation != AugmentationConfig():
        augmentation = Augmentation(config=config.augmentation, seed=config.seed)
    options = {} if config is None else {"options": storage_of(config)}
    return ExampleReader(
        table=table, encoding=encoding, image_size=SIZE, augmentation=augmentation, **options
    )


class Member(Alone):
    """One of several workers, without the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def feed_of(config: TrainConfig, rank: int = 0) -> LocalFeed:
    """One worker's feed of a data set with IDD's classes."""
    samples = find_samples(config, IDD)
    order = Order.of(config, len(samples.train))
    training = TrainingSet(samples=samples.train, order=order, reader=reader_of(config=config))
    plain = ExampleReader(
        table=IDD, encoding="official", image_size=SIZE, options=storage_of(config)
    )
    validation = ValidationSet(samples=samples.val, reader=plain)
    return LocalFeed(training, validation, Member(rank, config.workers), config.threads)
