"""The figures of an evaluation, as they are written to JSON. Figures that do not exist are None."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dinoidd.classes import IDD, IDD_LEVEL2, ClassTable
from dinoidd.metrics import (
    boundary_iou,
    iou,
    mean_of_present,
    pixel_accuracy,
    precision,
    recall,
    tally,
)

OFFICIAL_SLIP = "level1_as_official_script_prints"


def number(value: float | np.floating | np.ndarray) -> float | None:
    """NaN is no JSON."""
    return None if np.isnan(value) else float(value)


def finest_level(table: ClassTable) -> str:
    """What the table's own classes are called among the levels."""
    return "level3" if table == IDD else table.name


def levels(table: ClassTable, matrix: np.ndarray) -> dict[str, dict[str, Any]]:
    """The figures of every level of a class table, finest first.

    Coarser levels sum the finest one's matrix without void, as the official script does. That script
    then makes level 1 from the wrong matrix; what it prints comes under a name of its own.

    Args:
        matrix: int64 [K + 1, K + 1] of the table's classes; K is void.
    """
    inner = matrix[: len(table), : len(table)]
    result = {finest_level(table): level_scores(table.names, matrix)}
    for level in table.hierarchy:
        result[level.name] = level_scores(level.names, level.sum_matrix(inner))
    if table == IDD:
        level1 = IDD_LEVEL2.level("level1")
        wrong = inner[: len(IDD_LEVEL2), : len(IDD_LEVEL2)]
        result[OFFICIAL_SLIP] = level_scores(level1.names, level1.sum_matrix(wrong))
    return result


def level_scores(names: Sequence[str], matrix: np.ndarray) -> dict[str, Any]:
    """IoU, precision and recall of classes, and the mean over those present.

    Args:
        matrix: int64 [C, C] with C at least the number of names; what is beyond them is void.
    """
    counts_K3 = tally(matrix, len(names))
    ious = iou(counts_K3)
    columns = zip(names, ious, precision(counts_K3), recall(counts_K3), strict=True)
    labelled, predicted = matrix[: len(names)].sum(1), matrix[: len(names), : len(names)].sum(0)
    classes: list[dict[str, Any]] = [
        {"name": name, "iou": number(i), "precision": number(p), "recall": number(r)}
        for name, i, p, r in columns
    ]
    for entry, truth, drawn in zip(classes, labelled, predicted, strict=True):
        entry |= {"truth_pixels": int(truth), "predicted_pixels": int(drawn)}
    absent = [entry["name"] for entry in classes if entry["iou"] is None]
    invented = [e["name"] for e in classes if e["iou"] is not None and not e["truth_pixels"]]
    return {
        "mean_iou": number(mean_of_present(ious)),
        "pixel_accuracy": number(pixel_accuracy(counts_K3)),
        "present": len(names) - len(absent),
        "of": len(names),
        "absent": absent,
        "predicted_only": invented,  # their IoU is 0, and it counts
        "presence": presence(len(names), absent),
        "classes": classes,
    }


def presence(classes: int, absent: Sequence[str]) -> str:
    """`25 of 26 classes present; absent: rail track`."""
    if not absent:
        return f"all {classes} classes present"
    return f"{classes - len(absent)} of {classes} classes present; absent: {', '.join(absent)}"


def boundary_scores(names: Sequence[str], counts_K3: np.ndarray, ratio: float) -> dict[str, Any]:
    """Boundary IoU of classes, and the mean over those that have a boundary.

    Args:
        counts_K3: int64, see `boundary_counts`.
        ratio: the boundary's width as a share of the image's diagonal.
    """
    values = boundary_iou(counts_K3)
    return {
        "mean_iou": number(mean_of_present(values)),
        "dilation_share_of_diagonal": ratio,
        "classes": {name: number(value) for name, value in zip(names, values, strict=True)},
    }
