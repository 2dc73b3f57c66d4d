"""How far the figures would move with other drives, and the figures of every drive."""

from typing import Any

import numpy as np

from dinoidd.evaluation.scores import number
from dinoidd.evaluation.totals import Totals
from dinoidd.metrics import (
    interval,
    iou,
    mean_of_draws,
    mean_of_present,
    pixel_accuracy,
    resampled_sums,
)
from dinoidd.metrics.bootstrap import LEVEL


def intervals(totals: Totals, names: list[str], samples: int, seed: int) -> dict[str, Any]:
    """Percentile intervals of the figures by drawing drives anew; frames, where there is one drive.

    Frames of a drive resemble each other, so that drawing frames would promise too much.
    """
    drives = totals.by_drive()
    unit = "drives" if len(drives) > 1 else "frames"
    per_drive_DK3 = np.stack([tallies.sum(0) for tallies in drives.values()])
    units_UK3 = per_drive_DK3 if unit == "drives" else totals.stacked()
    result: dict[str, Any] = {
        "resampled": unit,
        "units": len(units_UK3),
        "level": LEVEL,
        "samples": samples,
        "seed": seed,
    }
    if len(units_UK3) < 2:
        return result | {"mean_iou": None, "pixel_accuracy": None, "classes": {}}
    sums_SK3 = resampled_sums(units_UK3, samples=samples, seed=seed)
    ious_SK = iou(sums_SK3)
    ends = zip(names, *interval(ious_SK), strict=True)
    return result | {
        "mean_iou": _ends(mean_of_draws(ious_SK, iou(per_drive_DK3.sum(0)))),
        "pixel_accuracy": _ends(pixel_accuracy(sums_SK3)),
        "classes": {name: _pair(low, high) for name, low, high in ends},
    }


def drive_scores(totals: Totals, samples: int, seed: int) -> list[dict[str, Any]]:
    """Every drive's figures, with intervals by drawing its frames anew (None for one frame)."""
    result = []
    for drive, tallies_NK3 in totals.by_drive().items():
        sums_K3 = tallies_NK3.sum(0)
        ious = iou(sums_K3)
        scores = {
            "drive": drive,
            "frames": len(tallies_NK3),
            "classes_present": int((~np.isnan(ious)).sum()),
            "mean_iou": number(mean_of_present(ious)),
            "mean_iou_interval": None,
            "pixel_accuracy": number(pixel_accuracy(sums_K3)),
        }
        if len(tallies_NK3) > 1:
            sums_SK3 = resampled_sums(tallies_NK3, samples=samples, seed=seed)
            scores["mean_iou_interval"] = _ends(mean_of_draws(iou(sums_SK3), ious))
        result.append(scores)
    return result


def _ends(values_S: np.ndarray) -> list[float] | None:
    return _pair(*(float(end) for end in interval(values_S)))


def _pair(low: float, high: float) -> list[float] | None:
    return None if np.isnan(low) else [float(low), float(high)]
