"""The numbers that say how good a segmentation is. Arrays in, arrays out: numpy alone.

Everything starts from counts that add up over images and workers (`confusion_matrix`,
`boundary_counts`), so that no figure needs a second look at the pixels.
"""

from dinoidd.metrics.bootstrap import interval, mean_of_draws, resampled_sums
from dinoidd.metrics.boundary import boundary_counts, boundary_distance, boundary_iou
from dinoidd.metrics.confusion import confusion_matrix
from dinoidd.metrics.iou import iou, mean_of_present, pixel_accuracy, precision, recall, tally

__all__ = [
    "boundary_counts",
    "boundary_distance",
    "boundary_iou",
    "confusion_matrix",
    "interval",
    "iou",
    "mean_of_draws",
    "mean_of_present",
    "pixel_accuracy",
    "precision",
    "recall",
    "resampled_sums",
    "tally",
]
