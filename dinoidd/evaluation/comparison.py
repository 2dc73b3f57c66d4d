"""Two runs on the same frames: which classes got better or worse, and whether by more than chance."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dinoidd.errors import InputError
from dinoidd.evaluation.frames import Frame
from dinoidd.evaluation.scores import number
from dinoidd.metrics import (
    interval,
    iou,
    mean_of_draws,
    mean_of_present,
    pixel_accuracy,
    resampled_sums,
)
from dinoidd.metrics.bootstrap import LEVEL

BETTER, WORSE, CHANCE = "better", "worse", "no more than chance"
SAME, NOT_JUDGED = "the same", "not judged"
ABSENT, ONE_RUN = "absent", "predicted by one run, never labelled"
UNITS_NEEDED = 10  # frames or drives: drawing fewer anew says little about others


@dataclass(frozen=True, kw_only=True)
class FrameTallies:
    """A run's TP, FP and FN: int64 [N, K, 3], in the order of `frames`."""

    name: str
    frames: list[Frame]
    tallies: np.ndarray


def compare(
    ours: FrameTallies, theirs: FrameTallies, names: list[str], *, samples: int, seed: int
) -> dict[str, Any]:
    """Our figures minus theirs on the frames of both, with paired bootstrap intervals over frames.

    Raises:
        InputError: the runs have no frame in common.
    """
    common_N2K3 = _common(ours, theirs)
    total_2K3 = common_N2K3.sum(0)
    sums_S2K3 = resampled_sums(common_N2K3, samples=samples, seed=seed)
    here_there_2K, drawn_S2K = iou(total_2K3), iou(sums_S2K3)
    frames = len(common_N2K3)
    occurs_K = common_N2K3.any(axis=(1, 3)).sum(0)
    classes = [
        {"name": name} | _change(here_there_2K[:, k], drawn_S2K[:, :, k], int(occurs_K[k]))
        for k, name in enumerate(names)
    ]
    both_K = ~np.isnan(here_there_2K).any(0)  # a mean over other classes is another figure
    shared_2K, drawn_shared_S2K = here_there_2K[:, both_K], drawn_S2K[:, :, both_K]
    means = mean_of_present(shared_2K), mean_of_draws(drawn_shared_S2K, shared_2K)
    accuracy = pixel_accuracy(total_2K3), pixel_accuracy(sums_S2K3)
    return {
        "other": theirs.name,
        "frames": frames,
        "frames_needed": UNITS_NEEDED,  # to judge a change
        "only_here": len(ours.frames) - frames,
        "only_there": len(theirs.frames) - frames,
        "level": LEVEL,
        "samples": samples,
        "seed": seed,
        "mean_iou": _change(*means, frames) | {"classes": int(both_K.sum())},
        "pixel_accuracy": _change(*accuracy, frames),
        "classes": classes,
        "better": [entry["name"] for entry in classes if entry["verdict"] == BETTER],
        "worse": [entry["name"] for entry in classes if entry["verdict"] == WORSE],
        "not_judged": [entry["name"] for entry in classes if entry["verdict"] == NOT_JUDGED],
    }


def verdict_text(verdict: str, frames: int) -> str:
    """A verdict in words, that on a change in so many frames."""
    if verdict != NOT_JUDGED:
        return verdict
    are = "frame" if frames == 1 else "frames"
    return f"{NOT_JUDGED}: {frames} {are}, at least {UNITS_NEEDED} are needed"


def _common(ours: FrameTallies, theirs: FrameTallies) -> np.ndarray:
    """Tallies of the frames of both, ours first: int64 [N, 2, K, 3]."""
    places = {frame: index for index, frame in enumerate(theirs.frames)}
    pairs = [(i, places[f]) for i, f in enumerate(ours.frames) if f in places]
    if not pairs:
        raise InputError(
            f"the two runs have no frame in common ({len(ours.frames):,} in {ours.name}, "
            f"{len(theirs.frames):,} in {theirs.name}): compare runs on the same ground truth"
        )
    here, there = (list(indices) for indices in zip(*pairs, strict=True))
    return np.stack([ours.tallies[here], theirs.tallies[there]], axis=1)


def _change(here_there: np.ndarray, drawn_S2: np.ndarray, frames: int) -> dict[str, Any]:
    """A figure of both runs, their difference and what the draws say of it."""
    here, there = (float(value) for value in here_there)
    differences = drawn_S2[:, 0] - drawn_S2[:, 1]
    low, high = (float(end) for end in interval(differences))
    known = differences[~np.isnan(differences)]
    tail = min((known <= 0).sum(), (known >= 0).sum())
    verdict = _verdict(here - there, low, high, frames)
    result = {
        "frames": frames,
        "here": number(here),
        "there": number(there),
        "difference": number(here - there),
        "interval": None if np.isnan(low) else [low, high],
        "p": min(1.0, 2 * (tail + 1) / (known.size + 1)) if known.size else None,
    }
    only_one = np.isnan(here) != np.isnan(there)
    return result | {"verdict": ONE_RUN if only_one else verdict}


def _verdict(difference: float, low: float, high: float, frames: int) -> str:
    if np.isnan(difference):
        return ABSENT
    if difference == low == high == 0:
        return SAME
    if frames < UNITS_NEEDED:
        return NOT_JUDGED
    if low > 0 or high < 0:
        return BETTER if low > 0 else WORSE
    return CHANCE
