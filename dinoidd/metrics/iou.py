"""What follows from a confusion matrix. A class that cannot be judged is NaN and in no mean."""

import numpy as np

TP, FP, FN = range(3)


def tally(matrix: np.ndarray, classes: int) -> np.ndarray:
    """True positives, false positives and false negatives of every class.

    A labelled pixel that was predicted as void is a false negative; pixels whose ground truth is void
    are nobody's false positives.

    Args:
        matrix: [..., C, C] counts, rows ground truth; indices of `classes` and above are void.
        classes: K, at most C.

    Returns:
        [..., K, 3] counts of the same dtype, that add up over images as the matrix does.
    """
    labelled = matrix[..., :classes, :]
    hits = np.diagonal(labelled, axis1=-2, axis2=-1)
    false_positives = labelled[..., :classes].sum(-2) - hits
    return np.stack([hits, false_positives, labelled.sum(-1) - hits], axis=-1)


def iou(tally_K3: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN), [..., K]; NaN for a class in neither ground truth nor prediction."""
    return _ratio(tally_K3[..., TP], tally_K3.sum(-1))


def precision(tally_K3: np.ndarray) -> np.ndarray:
    """Share of the predicted pixels that are right, [..., K]; NaN where none was predicted."""
    return _ratio(tally_K3[..., TP], tally_K3[..., TP] + tally_K3[..., FP])


def recall(tally_K3: np.ndarray) -> np.ndarray:
    """Share of the labelled pixels that were found, [..., K]; NaN where none is labelled."""
    return _ratio(tally_K3[..., TP], tally_K3[..., TP] + tally_K3[..., FN])


def pixel_accuracy(tally_K3: np.ndarray) -> np.ndarray:
    """Share of all labelled pixels that are right, [...]; NaN where none is labelled."""
    hits = tally_K3[..., TP].sum(-1)
    return _ratio(hits, hits + tally_K3[..., FN].sum(-1))


def mean_of_present(values_K: np.ndarray) -> np.ndarray:
    """The mean of the last axis without NaN, [...]; NaN where nothing is left."""
    present = ~np.isnan(values_K)
    return _ratio(np.where(present, values_K, 0.0).sum(-1), present.sum(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
