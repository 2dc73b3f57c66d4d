"""What a data set holds: its frames, labels, sizes, raw values and classes, split by split."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

from dinoidd.classes import IDD, TABLE, ClassTable, encodings_of, is_idd
from dinoidd.data.encoding import EncodingVerdict, judge_encoding
from dinoidd.data.frames import Frame, Frames, chosen_kind, find_frames, label_suffixes
from dinoidd.data.label_counts import Classes, FrameCounter, Tally, to_plain
from dinoidd.data.processes import map_in_processes
from dinoidd.errors import ClusterError, ConfigError
from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions, normalise

AUTO = "auto"
_BATCH = 16  # frames a task
_ORDER = {"train": 0, "val": 1, "test": 2}  # of splits, then the others by name
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]  # like map, anywhere


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """How often a class occurs; shares are 0..1, of the pixels and of the images of all labels read."""

    name: str
    pixels: int
    pixel_share: float
    images: int
    image_share: float


@dataclass(kw_only=True)
class Inspection:
    """What was found."""

    root: str
    table: ClassTable
    encoding: str  # that the classes below are counted under
    verdict: EncodingVerdict | None  # for tables other than idd there is nothing to tell apart
    splits: dict[str, Tally]
    files: Frames
    seconds: float = 0.0

    @property
    def read_as(self) -> str:
        """Class table and encoding, for a title."""
        encoding = "" if self.encoding == TABLE else f", encoding {self.encoding}"
        return f"class table {self.table.name}{encoding}"

    @property
    def total(self) -> Tally:
        """The counts of all splits together."""
        total = Tally()
        for tally in self.splits.values():
            total.merge(tally)
        return total

    def classes(self, split: str | None = None) -> list[ClassShare]:
        """Every class of the table in order, then `void`; of one split, or of all."""
        tally = self.total if split is None else self.splits[split]
        counts = tally.classes.get(self.encoding, Classes())
        named = [*enumerate(self.table.names), (self.table.ignore_index, "void")]
        return [
            ClassShare(
                name=name,
                pixels=counts.pixels[class_id],
                pixel_share=counts.pixels[class_id] / max(1, tally.pixels),
                images=counts.images[class_id],
                image_share=counts.images[class_id] / max(1, tally.labels_read),
            )
            for class_id, name in named
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the warnings."""
        return {
            "root": self.root,
            "classes": self.table.name,
            "encoding": self.encoding,
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "splits": {
                name: to_plain(tally) | {"classes": [asdict(c) for c in self.classes(name)]}
                for name, tally in self.splits.items()
            },
            "total": to_plain(self.total) | {"classes": [asdict(c) for c in self.classes()]},
            "other_files": dict(self.files.other.most_common()),
            "doubles": self.files.doubles,
            "seconds": self.seconds,
        }


def inspect_dataset(
    root: str,
    *,
    table: ClassTable = IDD,
    encoding: str = AUTO,
    label_suffix: str | None = None,
    options: StorageOptions = DEFAULT_OPTIONS,
    mapper: Mapper | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Read the header of every image and every pixel of every label image.

    Args:
        root: the data set's folder, here or in a bucket.
        encoding: of IDD's label images: `official`, `road255`, or `auto`: the one that fits.
        label_suffix: KIND of the label images NAME_gtFine_KIND.png; None: the table's.
        mapper: where the work is done; None: in `workers` processes on this machine.
        progress: called with the frames that are done, and all.

    Raises:
        ConfigError: an encoding that the table does not have, or another table's label images.
        InputError: there are no frames.
    """
    start = time.monotonic()
    encodings = encodings_of(table)
    if encoding != AUTO and encoding not in encodings:
        raise ConfigError(
            f"--encoding {encoding}: for class table '{table.name}' there are "
            f"{', '.join([AUTO, *encodings])}"
        )
    suffixes = label_suffixes(table.name)
    if label_suffix is not None:
        suffixes = (f"_gtFine_{chosen_kind(label_suffix, table)}.png",)
    files = find_frames(normalise(root), suffixes, options)
    counter = FrameCounter(table=table, encodings=encodings, options=options)
    mapper = mapper or partial(map_in_processes, workers=workers)
    splits = _count(files, counter, mapper, progress or (lambda done, total: None))
    inspection = Inspection(
        root=normalise(root),
        table=table,
        encoding=encoding,
        verdict=None,
        splits=splits,
        files=files,
    )
    if is_idd(table):
        inspection.verdict = judge_encoding(inspection.total)
    if encoding == AUTO:
        inspection.encoding = _best_encoding(inspection.verdict, encodings)
    inspection.seconds = round(time.monotonic() - start, 3)
    return inspection


def _best_encoding(verdict: EncodingVerdict | None, encodings: Collection[str]) -> str:
    if verdict is not None and verdict.encoding in encodings:
        return verdict.encoding
    return next(iter(encodings))


def _count(
    files: Frames, counter: FrameCounter, mapper: Mapper, progress: Callable[[int, int], None]
) -> dict[str, Tally]:
    splits: dict[str, Tally] = {}
    done, total = 0, len(files.frames)
    try:
        for split, frames, tally in mapper(partial(_count_batch, counter), _batches(files)):
            splits.setdefault(split, Tally()).merge(tally)
            done += frames
            progress(done, total)
    except BrokenProcessPool as error:
        raise ClusterError(
            "a process that read label images was killed (out of memory?): try fewer --workers"
        ) from error
    return dict(
        sorted(splits.items(), key=lambda item: (_ORDER.get(item[0], len(_ORDER)), item[0]))
    )


def _batches(files: Frames) -> Iterator[tuple[str, list[Frame]]]:
    """Some frames at a time, of one split each."""
    for split, frames in groupby(files.frames.values(), key=lambda frame: frame.split):
        while batch := list(islice(frames, _BATCH)):
            yield split, batch


def _count_batch(counter: FrameCounter, batch: tuple[str, list[Frame]]) -> tuple[str, int, Tally]:
    split, frames = batch
    return split, len(frames), counter.count(frames)


def splits_of_names(files: Frames) -> dict[str, set[str]]:
    """Frames' names without their split, of those that are in more than one."""
    seen: Counter[str] = Counter(key.partition("/")[2] for key in files.frames)
    double: dict[str, set[str]] = {}
    for key in files.frames:
        split, _, name = key.partition("/")
        if seen[name] > 1:
            double.setdefault(name, set()).add(split)
    return double
