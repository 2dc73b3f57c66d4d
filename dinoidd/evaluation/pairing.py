"""Which prediction belongs to which label, and what is missing on either side."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dinoidd.errors import InputError
from dinoidd.evaluation.frames import Frame
from dinoidd.evaluation.label_files import LabelFiles
from dinoidd.evaluation.predictions import MaskRow, Predictions
from dinoidd.evaluation.splits import Splits


@dataclass(frozen=True)
class Pair:
    """A label image and the reference of its prediction."""

    frame: Frame
    truth: str
    prediction: Any


@dataclass(kw_only=True)
class Pairing:
    """Pairs in the order of the predictions, and what found no partner."""

    pairs: list[Pair] = field(default_factory=list)
    without_prediction: list[str] = field(default_factory=list)
    without_label: list[str] = field(default_factory=list)
    ambiguous: list[tuple[str, str]] = field(default_factory=list)  # file, why it is left out
    other_splits: Counter[str] = field(default_factory=Counter)  # predictions left out, by split


def pair(truth: LabelFiles, predictions: Predictions, splits: Splits) -> Pairing:
    """Match by the folders below the roots and the name; where one side has no folders, by the name.

    Predictions of another split than the ground truth's are left out, and so is whatever fits more
    than one partner.

    Raises:
        InputError: no frame has both.
    """
    result, found = Pairing(), _find(truth, predictions, splits)
    result.other_splits, result.without_label = found.other_splits, found.without_label
    result.ambiguous = found.ambiguous
    repeated = {frame for frame, _ in truth.repeated}
    for frame, uri in truth.repeated:
        what = f"a second label of frame {frame}, beside {truth.uris[frame]}: neither counts"
        result.ambiguous.append((uri, what))
    for frame, references in found.of.items():
        if len(references) > 1:
            result.ambiguous += _repeated(frame, [predictions.place(r) for r in references])
        elif frame not in repeated:
            _add(result, frame, truth.uris[frame], references[0])
    missing = (f for f in truth.uris if f not in found.of and f not in repeated)
    result.without_prediction += [str(frame) for frame in missing]
    if not found.of:
        raise InputError(_nothing_fits(truth, result, predictions.uri, splits.wanted))
    return result


@dataclass
class _Found:
    """What the predictions belong to; `of`: references by the frame of their label."""

    of: dict[Frame, list[Any]] = field(default_factory=dict)
    without_label: list[str] = field(default_factory=list)
    ambiguous: list[tuple[str, str]] = field(default_factory=list)
    other_splits: Counter[str] = field(default_factory=Counter)


def _find(truth: LabelFiles, predictions: Predictions, splits: Splits) -> _Found:
    found, labels = _Found(), _Labels(truth.uris)
    for frame, folder, reference in predictions.listed():
        if other := splits.other(folder, labels.depth):
            found.other_splits[other] += 1
            continue
        fitting = labels.fitting(frame)
        if len(fitting) == 1:
            found.of.setdefault(fitting[0], []).append(reference)
        elif fitting:
            what = f"fits the labels of {len(fitting):,} frames ({_some(fitting)}): it is left out"
            found.ambiguous.append((predictions.place(reference), what))
        else:
            found.without_label.append(str(frame))
    return found


class _Labels:
    """Finds the labels for a prediction's frame."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._by_name: dict[str, list[Frame]] = {}
        self._by_drive_and_name: dict[str, list[Frame]] = {}
        self.depth = 2  # of folders that may tell a prediction's split
        for frame in frames:
            self._by_name.setdefault(frame.name, []).append(frame)
            if folders := _parts(frame):
                joined = f"{folders[-1]}_{frame.name}"
                self._by_drive_and_name.setdefault(joined, []).append(frame)
                self.depth = max(self.depth, 1 + len(folders))

    def fitting(self, predicted: Frame) -> list[Frame]:
        """Those of its name whose folders end alike as far as both go, and of these the longest."""
        named = self._by_name.get(predicted.name, [])
        if not predicted.drive:
            return [*named, *self._by_drive_and_name.get(predicted.name, [])]
        folders = _parts(predicted)
        fitting: dict[int, list[Frame]] = {}
        for frame in named:
            theirs = _parts(frame)
            common = min(len(folders), len(theirs))
            if folders[len(folders) - common :] == theirs[len(theirs) - common :]:
                fitting.setdefault(common, []).append(frame)
        return fitting[max(fitting)] if fitting else []


def _parts(frame: Frame) -> list[str]:
    return frame.drive.split("/") if frame.drive else []


def _repeated(frame: Frame, places: list[str]) -> list[tuple[str, str]]:
    what = "a second prediction of frame {}, beside {}: neither counts"
    return [(place, what.format(frame, places[0])) for place in places[1:]]


def _add(result: Pairing, frame: Frame, truth: str, reference: Any) -> None:
    """An error row of a run is a frame without prediction."""
    if isinstance(reference, MaskRow) and reference.error is not None:
        result.without_prediction.append(f"{frame} (error row: {reference.error})")
    else:
        result.pairs.append(Pair(frame, truth, reference))


def _some(items: list[Any]) -> str:
    return ", ".join(map(str, items[:3])) + ", ..." * (len(items) > 3)


def _nothing_fits(truth: LabelFiles, found: Pairing, uri: str, wanted: str | None) -> str:
    others, ours = found.other_splits, next(iter(truth.uris), "none")
    names = ", ".join(sorted(others))
    left = found.without_label + [file for file, _ in found.ambiguous]
    if others and not left:
        return (
            f"all {others.total():,} predictions in {uri} are left out: the names of their folders say "
            f"that they are of another split ({names}) than the ground truth in {truth.root} "
            f"({wanted}); choose those of {wanted}, or rename the folder"
        )
    also = f"; {others.total():,} are of other splits: {names}" if others else ""
    return (
        f"no frame has a label in {truth.root} ({len(truth.uris):,} frames, such as {ours}) and a "
        f"prediction in {uri} ({len(left):,}, such as {left[0] if left else 'none'}{also}): frames are "
        "matched by DRIVE/NAME, check that both folders are of the same split"
    )
