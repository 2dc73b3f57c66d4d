"""The confusion matrix: for each class, what its pixels were taken for."""

import numpy as np


def confusion_matrix(truth_HW: np.ndarray, prediction_HW: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of every pair of classes.

    Args:
        truth_HW: uint8 class ids of the ground truth; `classes` and above is void.
        prediction_HW: the same of the prediction, of the same shape.
        classes: K, at most 255.

    Returns:
        int64 [K + 1, K + 1]: rows are the ground truth, columns the prediction, index K is void.
    """
    if truth_HW.shape != prediction_HW.shape:
        raise ValueError(f"ground truth {truth_HW.shape}, prediction {prediction_HW.shape}")
    side = classes + 1
    pairs_HW = np.minimum(truth_HW, classes).astype(np.uint16)  # (255 + 1)^2 - 1 is its largest
    pairs_HW *= np.uint16(side)
    pairs_HW += np.minimum(prediction_HW, classes)
    return np.bincount(pairs_HW.ravel(), minlength=side * side).reshape(side, side)
