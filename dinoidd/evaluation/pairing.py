"""Which prediction belongs to which label, and what is missing on either side."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dinoidd.errors import InputError
from dinoidd.evaluation.frames import Frame, split_of
from dinoidd.evaluation.label_files import LabelFiles
from dinoidd.evaluation.predictions import Listed, MaskRow, Predictions


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
    repeated: list[tuple[str, str]] = field(default_factory=list)  # file, what is wrong
    other_splits: Counter[str] = field(default_factory=Counter)  # predictions left out, by split


def pair(truth: LabelFiles, predictions: Predictions) -> Pairing:
    """Match by drive and frame; where one side has no drives, by the frame's name alone.

    Frames of two splits may have the same names: where the ground truth is of one split, predictions
    of others are left out.

    Raises:
        InputError: no frame has both.
    """
    result = Pairing()
    listed = list(_of_split(truth.root, predictions.listed(), result.other_splits))
    find = _Finder(truth.uris, (mask.frame for mask in listed))
    seen: dict[Frame, Any] = {}
    for found, _, reference in listed:
        frame = find(found)
        if frame is None:
            result.without_label.append(str(found))
        elif frame in seen:
            what = f"a second prediction of frame {frame}; {predictions.place(seen[frame])} counts"
            result.repeated.append((predictions.place(reference), what))
        else:
            seen[frame] = reference
            _add(result, frame, truth.uris[frame], reference)
    result.without_prediction += [str(frame) for frame in truth.uris if frame not in seen]
    for frame, uri in truth.repeated:
        result.repeated.append((uri, f"a second label of frame {frame}; the first one counts"))
    if not seen:
        frames = [mask.frame for mask in listed]
        raise InputError(_nothing_fits(truth, frames, predictions.uri, result.other_splits))
    return result


def _of_split(root: str, listed: Iterable[Listed], others: Counter[str]) -> Iterator[Listed]:
    """Those of the ground truth's split, and those that tell none; the others are counted."""
    wanted = split_of(f"{root}/*") or split_of(root)
    for mask in listed:
        split = wanted and split_of(mask.folder, wanted)
        if split is None or split == wanted:
            yield mask
        else:
            others[split] += 1


def _add(result: Pairing, frame: Frame, truth: str, reference: Any) -> None:
    """An error row of a run is a frame without prediction."""
    if isinstance(reference, MaskRow) and reference.error is not None:
        result.without_prediction.append(f"{frame} (error row: {reference.error})")
    else:
        result.pairs.append(Pair(frame, truth, reference))


class _Finder:
    """Finds the label's frame for a prediction's."""

    def __init__(self, truth: Iterable[Frame], predicted: Iterable[Frame]) -> None:
        self._exact = set(truth)
        flat = not any(f.drive for f in self._exact) or not any(f.drive for f in predicted)
        self._by_name: dict[str, Frame] = {}
        if flat:
            names = Counter(f.name for f in self._exact)
            self._by_name = {f"{f.drive}_{f.name}": f for f in self._exact if f.drive}
            self._by_name |= {f.name: f for f in self._exact if names[f.name] == 1}

    def __call__(self, frame: Frame) -> Frame | None:
        return frame if frame in self._exact else self._by_name.get(frame.name)


def _nothing_fits(truth: LabelFiles, predicted: list[Frame], uri: str, others: Counter[str]) -> str:
    ours, theirs = next(iter(truth.uris), "none"), predicted[0] if predicted else "none"
    left_out = f"; {others.total():,} are of other splits: {', '.join(sorted(others))}" * bool(
        others
    )
    return (
        f"no frame has a label in {truth.root} ({len(truth.uris):,} frames, such as {ours}) and a "
        f"prediction in {uri} ({len(predicted):,}, such as {theirs}{left_out}): frames are matched "
        "by DRIVE/NAME, check that both folders are of the same split"
    )
