"""What there is to learn from: the frames of the training and validation split that have a label."""

from collections import Counter
from dataclasses import dataclass, field

from dinoidd.classes import BUILT_IN, ClassTable
from dinoidd.data.frames import Frame, find_frames, label_suffixes
from dinoidd.errors import InputError
from dinoidd.log import logger
from dinoidd.storage import StorageOptions, normalise, shown
from dinoidd.training.config import TrainConfig

# The encoding that IDD's polygons are drawn in, by class table; all hold class ids and 255.
_POLYGON_ENCODINGS = {
    "idd": "level3Id",
    "idd_level2": "level2Id",
    "idd_level1": "level1Id",
    "cityscapes_train_ids": "csTrainId",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image and its label, by their URIs."""

    key: str  # of the frame, like train/0/001
    image: str
    label: str  # a label image, or IDD's polygons
    drawn: bool = False  # whether the label is polygons, which are drawn in memory
    stamp: int = field(default=0, compare=False)  # of the files' sizes and ETags


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Both splits, each in the order of its keys."""

    train: list[Sample]
    val: list[Sample]


def storage_of(config: TrainConfig) -> StorageOptions:
    """Where the run's object storage is."""
    return StorageOptions(endpoint_url=config.endpoint_url)


def find_samples(config: TrainConfig, table: ClassTable) -> Samples:
    """List the data set once and take both splits.

    Raises:
        InputError: no data set, a split that is not there, has no labelled frame, or has fewer than
            one step needs.
    """
    root = normalise(config.data)
    files = find_frames(root, label_suffixes(table.name), storage_of(config))
    frames = list(files.frames.values())
    train = _split(frames, config.train_split, "train_split", table, root)[
        : config.max_train_images
    ]
    val = _split(frames, config.val_split, "val_split", table, root)[: config.max_val_images]
    if len(train) < config.batch_size:
        raise InputError(
            f"the split '{config.train_split}' of {shown(root)} has {len(train)} labelled images, and "
            f"one step takes batch_size={config.batch_size}: set batch_size to {len(train)} or less"
        )
    return Samples(train=train, val=val)


def polygon_encoding(table: ClassTable) -> str | None:
    """How IDD's polygons are drawn for that table; None where they cannot be."""
    return _POLYGON_ENCODINGS.get(table.name) if BUILT_IN.get(table.name) == table else None


def _split(
    frames: list[Frame], split: str, option: str, table: ClassTable, root: str
) -> list[Sample]:
    images = [f for f in frames if f.split == split and f.image is not None]
    if not images:
        there = Counter(f.split for f in frames if f.image is not None)
        listed = ", ".join(f"{name} ({count:,})" for name, count in there.items()) or "none"
        raise InputError(
            f"{shown(root)} has no images in the split '{split}': set {option} to one of those "
            f"there are: {listed}"
        )
    samples = [sample for frame in images if (sample := _sample(frame, table)) is not None]
    if not samples:
        raise InputError(f"{_unlabelled(images, split, root)}: {_advice(images, table)}")
    if len(samples) < len(images):
        labelled = {sample.key for sample in samples}
        without = [frame for frame in images if frame.key not in labelled]
        logger.warning("%s: they are left out", _unlabelled(without, split, root, len(images)))
    return samples


def _sample(frame: Frame, table: ClassTable) -> Sample | None:
    """The frame with its label image, else with its polygons, if they can be drawn for the table."""
    assert frame.image is not None
    if frame.label is not None:
        return Sample(key=frame.key, image=frame.image, label=frame.label, stamp=frame.stamp)
    if frame.polygons is not None and polygon_encoding(table) is not None:
        return Sample(
            key=frame.key,
            image=frame.image,
            label=frame.polygons,
            drawn=True,
            stamp=frame.stamp,
        )
    return None


def _unlabelled(without: list[Frame], split: str, root: str, of: int | None = None) -> str:
    count = f"none of the {len(without):,}" if of is None else f"{len(without):,} of {of:,}"
    has = "has a" if of is None else "have no"
    return (
        f"{count} images in the split '{split}' of {shown(root)} {has} label, such as "
        f"{without[0].key}"
    )


def _advice(images: list[Frame], table: ClassTable) -> str:
    if any(frame.polygons for frame in images):
        return (
            f"there are IDD polygons, which are drawn for the class tables "
            f"{', '.join(_POLYGON_ENCODINGS)}, not for '{table.name}'"
        )
    suffixes = " or ".join(label_suffixes(table.name))
    return f"in gtFine/ label images of class table '{table.name}' end in {suffixes}"
