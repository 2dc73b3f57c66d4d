"""Whether the labels are what the configuration takes them for, told before anything is trained."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dinoidd.classes import IDD_ENCODINGS, ClassTable, encodings_of
from dinoidd.data.encoding import EncodingVerdict, judge_encoding
from dinoidd.data.frames import Frame
from dinoidd.data.label_counts import Classes, Findings, FrameCounter, Tally, color_of
from dinoidd.errors import ConfigError, InputError
from dinoidd.log import logger
from dinoidd.storage import shown
from dinoidd.training.config import TrainConfig
from dinoidd.training.reading import VOID, ExampleReader, SampleError
from dinoidd.training.samples import Sample, Samples, storage_of

AUTO = "auto"
MOST = 200  # labels that are looked at, over both splits
_SHOWN = 8  # raw values in a message
_NAMED = 3  # and files
_DRAWN_SIZE = 256  # pixels of the square that polygons are looked at


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """What was found out about the labels."""

    encoding: str  # how label images are read, one of `encodings_of(table)`
    sentence: str  # what was seen, for the log
    pixels: Counter[int]  # of each class in the training labels that were looked at
    broken: int  # of the samples that were looked at, files that cannot be read


def check_labels(config: TrainConfig, table: ClassTable, samples: Samples) -> LabelCheck:
    """Look at up to 200 labels, spread over both splits.

    Raises:
        ConfigError: the encoding that is set contradicts the labels, or `auto` cannot tell it.
        InputError: raw values that the class table does not name, labels of another size than their
            images, labels that are void throughout, or none that can be read.
        StorageError: the store does not answer.
    """
    counter = _Counter(config, table)
    splits = {
        name: counter.count(part)
        for name, part in zip(
            (config.train_split, config.val_split), _spread(samples, config.seed), strict=True
        )
    }
    encoding, sentence = _encoding(config.encoding, table, splits)
    for name, seen in splits.items():
        _refuse(name, seen, encoding, table)
    return LabelCheck(
        encoding=encoding,
        sentence=sentence,
        pixels=splits[config.train_split].classes(encoding).pixels,
        broken=sum(seen.tally.broken.count for seen in splits.values()),
    )


@dataclass(kw_only=True)
class _Seen:
    """What the samples of one split hold."""

    tally: Tally = field(default_factory=Tally)
    # By encoding: the label images with raw values that it does not name.
    strange: dict[str, Findings] = field(default_factory=dict)

    def add(self, sample: Sample, tally: Tally) -> None:
        self.tally.merge(tally)
        for encoding, classes in tally.classes.items():
            findings = self.strange.setdefault(encoding, Findings())
            if classes.unmapped:
                findings.add(shown(sample.label))

    def classes(self, encoding: str) -> Classes:
        return self.tally.classes.get(encoding, Classes())

    def strange_files(self, encoding: str) -> str:
        """`2 of 100 label images (FILE; FILE)`."""
        findings = self.strange.get(encoding, Findings())
        return _these(findings, self.tally.labels_read, "label images")


class _Counter:
    """Counts what samples hold, in threads; one thread's failure ends all."""

    def __init__(self, config: TrainConfig, table: ClassTable) -> None:
        encodings, options = encodings_of(table), storage_of(config)
        self._names = tuple(encodings)
        self._threads = config.threads
        self._images = FrameCounter(table=table, encodings=encodings, options=options)
        self._drawn = ExampleReader(
            table=table, encoding=self._names[0], image_size=_DRAWN_SIZE, options=options
        )

    def count(self, samples: list[Sample]) -> _Seen:
        seen = _Seen()
        with ThreadPoolExecutor(self._threads) as pool:
            for sample, tally in zip(samples, pool.map(self._count, samples), strict=True):
                seen.add(sample, tally)
        return seen

    def _count(self, sample: Sample) -> Tally:
        if sample.drawn:
            return self._count_drawn(sample)
        return self._images.count([Frame(key=sample.key, image=sample.image, label=sample.label)])

    def _count_drawn(self, sample: Sample) -> Tally:
        """Polygons are always official: their classes count, and there is no encoding to judge."""
        tally = Tally(frames=1, polygons=1)
        try:
            ids_SS = self._drawn.read(sample).label_SS
        except SampleError as error:
            tally.broken.add(str(error))
            return tally
        classes, pixels = np.unique(ids_SS, return_counts=True)
        for name in self._names:
            counts = tally.classes.setdefault(name, Classes())
            counts.pixels.update(dict(zip(classes.tolist(), pixels.tolist(), strict=True)))
        return tally


def _spread(samples: Samples, seed: int) -> Iterator[list[Sample]]:
    """As many of either split, or what the smaller one leaves to the other; drawn from the seed."""
    generator = np.random.default_rng(seed)
    half = MOST // 2
    for part, other in ((samples.train, samples.val), (samples.val, samples.train)):
        count = min(len(part), max(half, MOST - len(other)))
        chosen = generator.choice(len(part), count, replace=False)
        yield [part[i] for i in sorted(chosen.tolist())]


def _encoding(asked: str, table: ClassTable, splits: dict[str, _Seen]) -> tuple[str, str]:
    """How label images are read, and why."""
    encodings = encodings_of(table)
    if encodings.keys() != IDD_ENCODINGS.keys():
        if asked != AUTO:
            raise ConfigError(
                f"encoding={asked} is one of IDD's label images: the class table '{table.name}' "
                "tells how its own are read; leave encoding out"
            )
        return next(iter(encodings)), f"label images are read as class table '{table.name}' says"
    official = next(iter(encodings))
    verdicts = {n: judge_encoding(s.tally) for n, s in splits.items() if s.tally.labels_read}
    if not verdicts:
        return official if asked == AUTO else asked, "labels are drawn from polygons"
    for name, verdict in verdicts.items():
        if not verdict.is_idd and verdict.encoding != "undecided":
            split, told = splits[name], verdict.sentence
            if not split.tally.colored.count:  # those are told with their files
                told += f"; they occur in {split.strange_files(official)}"
            raise InputError(f"the labels of '{name}' cannot be used: {told}")
    found = {v.encoding for v in verdicts.values() if v.is_idd}
    chosen = _detected(found, verdicts) if asked == AUTO else asked
    if found - {chosen}:
        seen = next(v for v in verdicts.values() if v.is_idd and v.encoding != chosen)
        raise ConfigError(
            f"encoding={chosen} contradicts the label images: {seen.sentence}; "
            f"set encoding={seen.encoding}"
        )
    for verdict in verdicts.values():
        if not verdict.clear:
            logger.warning("%s", verdict.sentence)
    return chosen, f"encoding {chosen}: {_told(verdicts)}"


def _detected(found: set[str], verdicts: dict[str, EncodingVerdict]) -> str:
    """The one encoding that all splits fit clearly. Raises ConfigError."""
    doubts = [v for v in verdicts.values() if v.is_idd and not v.clear]
    if len(found) == 1 and not doubts:
        return next(iter(found))
    raise ConfigError(
        f"encoding=auto cannot tell how road is encoded: {_told(verdicts)}; look at a label image, "
        "and set encoding=official (road is 0) or encoding=road255"
    )


def _told(verdicts: dict[str, EncodingVerdict]) -> str:
    return "; ".join(f"{name}: {verdict.sentence}" for name, verdict in verdicts.items())


def _refuse(split: str, seen: _Seen, encoding: str, table: ClassTable) -> None:
    """Raise InputError for what nothing can be learned from; tell of single broken files."""
    tally, classes = seen.tally, seen.classes(encoding)
    if classes.unmapped:
        raise InputError(
            f"in '{split}' {seen.strange_files(encoding)} hold raw values that the class table "
            f"'{table.name}' does not name: {_values(classes, tally)}; use the right --classes, name "
            "them in the table, or set its 'unmapped' to 'ignore'"
        )
    if tally.other_size.count:
        other = _these(tally.other_size, tally.frames, "images")
        raise InputError(
            f"in '{split}' {other} have labels of another size than their image: draw or export them "
            "anew"
        )
    if tally.broken.count:
        broken = _these(tally.broken, tally.frames, "images")
        if not classes.pixels:
            raise InputError(f"not one label of '{split}' can be read: {broken}")
        logger.warning("in '%s' %s cannot be read: such images are left out", split, broken)
    if not set(classes.pixels) - {table.ignore_index, VOID}:
        raise InputError(
            f"all {tally.frames:,} labels of '{split}' that were looked at are void throughout: there "
            "is nothing to learn; check --classes and encoding"
        )


def _values(classes: Classes, tally: Tally) -> str:
    most = classes.unmapped.most_common(_SHOWN)
    colors = not tally.kinds["values"]
    shown = ", ".join(
        f"{list(color_of(value)) if colors else value} ({pixels:,} pixels)"
        for value, pixels in most
    )
    more = len(classes.unmapped) - len(most)
    return shown + (f" and {more:,} more" if more else "")


def _these(findings: Findings, of: int, what: str) -> str:
    more = "; ..." if findings.count > _NAMED else ""
    return f"{findings.count:,} of {of:,} {what} ({'; '.join(findings.examples[:_NAMED])}{more})"
