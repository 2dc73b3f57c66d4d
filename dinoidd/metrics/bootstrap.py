"""Intervals by the bootstrap: what the figures would be had other images, or drives, been drawn."""

import numpy as np

from dinoidd.metrics.iou import mean_of_present

SAMPLES = 1000
LEVEL = 0.95
_WEIGHTS_AT_ONCE = 4_000_000  # numbers: 32 MB


def resampled_sums(counts: np.ndarray, *, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """Draw as many units as there are, with replacement, and sum their counts; again and again.

    Counts of two runs stacked on one axis are drawn together, which is the paired bootstrap.

    Args:
        counts: [N, ...] counts of N units (images, drives) that add up.
        samples: S, how often.
        seed: the same one draws the same units, however many counts each has.

    Returns:
        float64 [S, ...] sums; exact, as long as they are below 2^53.
    """
    units = len(counts)
    rng = np.random.default_rng(seed)
    flat = counts.reshape(units, -1).astype(np.float64)
    sums = np.empty((samples, flat.shape[1]))
    step = max(1, _WEIGHTS_AT_ONCE // max(1, units))
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        weights = rng.multinomial(units, np.full(units, 1 / units), size=rows)
        sums[start : start + rows] = weights.astype(np.float64) @ flat
    return sums.reshape(samples, *counts.shape[1:])


def mean_of_draws(drawn_SK: np.ndarray, all_K: np.ndarray) -> np.ndarray:
    """The mean over the classes of the whole set, in every draw, [S].

    A class that a draw lacks (NaN) keeps the figure of the whole set. Were it left out instead, a draw
    without a rare and badly segmented class would seem better than the set it was drawn from.

    Args:
        drawn_SK: figures of the draws, [S, K] (or [S, ..., K]).
        all_K: the same of the whole set, [K] (or [..., K]).
    """
    return mean_of_present(np.where(np.isnan(drawn_SK), all_K, drawn_SK))


def interval(values_S: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval over the first axis: low and high, [...].

    Samples that are NaN (a class that was not drawn) are left out; NaN where all are.
    """
    ends = [50 * (1 - level), 50 * (1 + level)]
    flat = values_S.reshape(len(values_S), -1)
    result = np.full((2, flat.shape[1]), np.nan)
    for column, values in enumerate(flat.T):
        known = values[~np.isnan(values)]
        if known.size:
            result[:, column] = np.percentile(known, ends)
    low, high = result.reshape(2, *values_S.shape[1:])
    return low, high
