"""Counting: a batch of pairs in, a confusion matrix a frame out. The same here and on a cluster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from dinoidd.data.label_counts import Tally
from dinoidd.data.label_image import read_label
from dinoidd.errors import DinoiddError, ImageError, OutputError, StorageError
from dinoidd.evaluation.frames import Frame
from dinoidd.evaluation.label_image import Label, LabelReader, Size, size_of
from dinoidd.evaluation.pairing import Pair
from dinoidd.evaluation.predictions import Opened, Predictions
from dinoidd.metrics import boundary_counts, boundary_distance, confusion_matrix
from dinoidd.storage import ObjectReader, StorageOptions

PAIRS_AT_ONCE = 4  # of single files
_SHAPE_TOLERANCE = 0.02  # of the aspect ratio: the official 858x480 is 0.5 % off 16:9


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with one file; `counted` where the frame is in the figures all the same."""

    file: str
    what: str
    counted: bool = False
    contradicts: bool = False  # the settings: all figures may be wrong, so it is told at the top


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """A frame's confusion matrix, without its zeros, and its boundaries."""

    frame: Frame
    cells: np.ndarray  # uint32, indices into the flattened matrix
    pixels: np.ndarray  # int64, the counts there
    boundary: np.ndarray  # int64 [K, 3], see `boundary_counts`


@dataclass(kw_only=True)
class Counted:
    """What comes back for a batch: counts and words, no pixels."""

    pairs: int = 0
    frames: list[FrameCounts] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    truth: Tally = field(default_factory=Tally)  # the raw values of the ground truth
    predicted: Tally = field(default_factory=Tally)  # and of the predictions
    boundary_widths: set[int] = field(default_factory=set)  # pixels


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Counts batches of pairs. Picklable.

    `size`: what both images are resized to, whatever their own sizes; None: nothing is, and a prediction
    of another size than its label is refused, unless `any_size` resizes it like the label.
    `boundary_ratio`: boundary width as a share of the diagonal.
    """

    truth: LabelReader
    predicted: LabelReader
    predictions: Predictions
    size: Size | None
    any_size: bool
    boundary_ratio: float
    options: StorageOptions

    def __call__(self, pairs: Sequence[Pair]) -> Counted:
        """Count pairs of one unit."""
        result = Counted(pairs=len(pairs))
        for pair, mask in zip(pairs, self._masks(pairs), strict=True):
            self._count(pair, mask, result)
        return result

    def _masks(self, pairs: Sequence[Pair]) -> Iterator[Opened]:
        """One at a time; where a file that holds them all is damaged, the error for each."""
        done = 0
        try:
            for mask in self.predictions.read([pair.prediction for pair in pairs]):
                yield mask
                done += 1
        except (OutputError, StorageError) as error:
            yield from [error] * (len(pairs) - done)

    def _count(self, pair: Pair, mask: Opened, result: Counted) -> None:
        place = self.predictions.place(pair.prediction)
        label = self._read(pair.truth, None, self.truth, self.size, result)
        drawn = label and self._read(
            place, mask, self.predicted, size_of(label.ids) if self.any_size else self.size, result
        )
        if label is None or drawn is None:
            return
        for tally, image in ((result.truth, label), (result.predicted, drawn)):
            if image.counts:
                tally.add_values(str(pair.frame), image.counts, "values")
        if label.ids.shape != drawn.ids.shape:
            sizes = *size_of(drawn.ids), *size_of(label.ids)
            what = "{}x{} pixels, its label has {}x{}".format(*sizes)
            hint = ": --allow-size-mismatch, or a --resolution, resizes it"
            result.problems.append(Problem(file=place, what=what + hint))
            return
        shape = None if self.any_size else _other_shape(drawn.full_size, label.full_size)
        if shape is not None:
            result.problems.append(Problem(file=place, what=shape, counted=True))
        height, width = label.ids.shape
        distance = boundary_distance(height, width, self.boundary_ratio)
        result.boundary_widths.add(distance)
        result.frames.append(self._counts(pair.frame, label.ids, drawn.ids, distance))

    def _read(
        self,
        file: str,
        image: Opened | None,
        reader: LabelReader,
        size: Size | None,
        result: Counted,
    ) -> Label | None:
        """An image that is given, or a file's; None, and a problem, where it cannot be read."""
        try:
            if image is None:
                image = read_label(ObjectReader(self.options).read(file), reader.raw)
            if isinstance(image, DinoiddError):
                raise image
            label = reader.read(image, size)
        except DinoiddError as error:
            kind = f"{error.kind}: " if isinstance(error, ImageError) else ""
            result.problems.append(Problem(file=file, what=f"{kind}{error}"))
            return None
        if label.unknown:
            result.problems.append(Problem(file=file, what=label.unknown, counted=True))
        return label

    def _counts(
        self, frame: Frame, truth_HW: np.ndarray, predicted_HW: np.ndarray, distance: int
    ) -> FrameCounts:
        classes = self.truth.classes
        matrix = confusion_matrix(truth_HW, predicted_HW, classes).ravel()
        cells = np.flatnonzero(matrix)
        return FrameCounts(
            frame=frame,
            cells=cells.astype(np.uint32),
            pixels=matrix[cells],
            boundary=boundary_counts(truth_HW, predicted_HW, classes, distance),
        )


def _other_shape(drawn: Size, label: Size) -> str | None:
    """In words, where resizing both to one size distorts them differently."""
    ratio = (drawn[0] / drawn[1]) / (label[0] / label[1])
    if max(ratio, 1 / ratio) <= 1 + _SHAPE_TOLERANCE:
        return None
    return (
        "{}x{} pixels, its label has {}x{}, another aspect ratio: both were stretched to one size; "
        "check that they are of the same frame".format(*drawn, *label)
    )


def in_batches(pairs: Sequence[Pair], predictions: Predictions) -> Iterator[list[Pair]]:
    """Consecutive pairs whose predictions are best read together."""
    for unit, group in groupby(pairs, key=lambda pair: predictions.unit(pair.prediction)):
        members = list(group)
        step = PAIRS_AT_ONCE if unit is None else len(members)
        yield from (members[i : i + step] for i in range(0, len(members), step))
