"""Boundary IoU (Cheng et al., arXiv 2103.16562): how well the outlines of a class agree.

A class's boundary is those of its pixels that lie within a distance of its outline: in a square of
2 * distance + 1 pixels around them there is another class, or the image ends. Void is nobody's: the
prediction counts as void wherever the ground truth is, so that both have the same outline there.
"""

from collections.abc import Callable

import numpy as np

# Of the image's diagonal. The paper takes 2 % for COCO and LVIS, and 0.5 % for Cityscapes, whose fine
# labels and large images are those of street scenes: 7 pixels at 1280x720.
DEFAULT_RATIO = 0.005
INTERSECTION, TRUTH, PREDICTION = range(3)


def boundary_distance(height: int, width: int, ratio: float = DEFAULT_RATIO) -> int:
    """How many pixels wide a boundary is (the paper's d): a share of the diagonal, at least 1."""
    return max(1, round(ratio * float(np.hypot(height, width))))


def boundary_counts(
    truth_HW: np.ndarray, prediction_HW: np.ndarray, classes: int, distance: int
) -> np.ndarray:
    """Count the boundary pixels of every class.

    Args:
        truth_HW: uint8 class ids of the ground truth; `classes` and above is void.
        prediction_HW: the same of the prediction, of the same shape.
        classes: K.
        distance: see `boundary_distance`.

    Returns:
        int64 [K, 3]: pixels in both boundaries, in the ground truth's, in the prediction's.
    """
    void = np.uint8(classes)
    truth_HW = np.minimum(truth_HW, void)
    prediction_HW = np.where(truth_HW == void, void, np.minimum(prediction_HW, void))
    at_truth = near_outline(truth_HW, distance)
    at_prediction = near_outline(prediction_HW, distance)
    both = at_truth & at_prediction & (truth_HW == prediction_HW)
    sets = (truth_HW[both], truth_HW[at_truth], prediction_HW[at_prediction])
    counts = [np.bincount(ids, minlength=classes + 1)[:classes] for ids in sets]
    return np.stack(counts, axis=-1)


def boundary_iou(counts_K3: np.ndarray) -> np.ndarray:
    """Intersection over union, [..., K]; NaN for a class that has no boundary on either side."""
    both = np.asarray(counts_K3[..., INTERSECTION], np.float64)
    union = counts_K3[..., TRUTH] + counts_K3[..., PREDICTION] - both
    return np.divide(both, union, out=np.full(union.shape, np.nan), where=union > 0)


def near_outline(ids_HW: np.ndarray, distance: int) -> np.ndarray:
    """Whether another class, or the image's end, is within the distance: bool HxW.

    All classes at once: a square holds one class where its smallest id is its largest.
    """
    distance = min(distance, *ids_HW.shape)  # the whole image is near its end then
    near_HW = np.ones(ids_HW.shape, bool)
    height, width = (side - 2 * distance for side in ids_HW.shape)
    if height <= 0 or width <= 0:
        return near_HW
    least, most = (_over_squares(ids_HW, 2 * distance + 1, f) for f in (np.minimum, np.maximum))
    near_HW[distance:-distance, distance:-distance] = least != most
    return near_HW


def _over_squares(
    ids_HW: np.ndarray, side: int, smaller: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The minimum or maximum over every square of that side inside the image."""
    return _over_runs(_over_runs(ids_HW, side, smaller).T, side, smaller).T


def _over_runs(
    ids_HW: np.ndarray, length: int, smaller: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The same over runs of rows: runs of 1, 2, 4, ... and at last two that overlap."""
    run = 1
    while run < length:
        step = min(run, length - run)
        ids_HW = smaller(ids_HW[:-step], ids_HW[step:])
        run += step
    return ids_HW
