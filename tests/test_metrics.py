"""Metrics against plain loops over pixels, written without a look at the code."""

import math
import subprocess
import sys

import numpy as np
import pytest

from dinoidd.metrics import (
    confusion_matrix,
    interval,
    iou,
    mean_of_draws,
    mean_of_present,
    pixel_accuracy,
    precision,
    recall,
    resampled_sums,
    tally,
)

CLASSES = 5
VOIDS = [5, 6, 17, 255]


def labels(seed: int, shape: tuple[int, int] = (17, 23), absent: int = 3) -> np.ndarray:
    """Random ids with all kinds of void, and one class that never occurs."""
    ids = [c for c in range(CLASSES) if c != absent] + VOIDS
    return np.random.default_rng(seed).choice(ids, shape).astype(np.uint8)


def loop_counts(truth: np.ndarray, drawn: np.ndarray) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            pair = (min(int(truth[y, x]), CLASSES), min(int(drawn[y, x]), CLASSES))
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def test_confusion_matrix__equals_a_loop_over_pixels() -> None:
    truth, drawn = labels(0), labels(1)
    matrix = confusion_matrix(truth, drawn, CLASSES)
    assert matrix.shape == (6, 6)
    assert matrix.dtype == np.int64
    counts = loop_counts(truth, drawn)
    for row in range(6):
        for column in range(6):
            assert matrix[row, column] == counts.get((row, column), 0)


@pytest.mark.parametrize("classes", [1, 2, 26, 150, 255])
def test_confusion_matrix__any_number_of_classes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    truth, drawn = rng.integers(0, 256, (2, 40, 40), np.uint8)
    matrix = confusion_matrix(truth, drawn, classes)
    assert matrix.shape == (classes + 1, classes + 1)
    assert matrix.sum() == 1600
    both = (truth == classes - 1) & (drawn >= classes)
    assert matrix[classes - 1, classes] == both.sum()


def test_confusion_matrix__other_shapes() -> None:
    with pytest.raises(ValueError, match=r"ground truth \(2, 3\), prediction \(3, 2\)"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


def test_scores__equal_sums_over_pairs() -> None:
    truth, drawn = labels(2), labels(3)
    counts = loop_counts(truth, drawn)
    counts_K3 = tally(confusion_matrix(truth, drawn, CLASSES), CLASSES)
    for c in range(CLASSES):
        hits = counts.get((c, c), 0)
        labelled = sum(n for (row, _), n in counts.items() if row == c)
        claimed = sum(n for (row, col), n in counts.items() if col == c and row < CLASSES)
        assert counts_K3[c].tolist() == [hits, claimed - hits, labelled - hits]
        if labelled + claimed:
            assert iou(counts_K3)[c] == hits / (labelled + claimed - hits)
            assert precision(counts_K3)[c] == hits / claimed
            assert recall(counts_K3)[c] == hits / labelled
    right = sum(n for (row, col), n in counts.items() if row == col < CLASSES)
    all_labelled = sum(n for (row, _), n in counts.items() if row < CLASSES)
    assert pixel_accuracy(counts_K3) == right / all_labelled


def test_scores__void_prediction_is_a_miss_and_void_truth_is_nobodys_fault() -> None:
    truth = np.array([[0, 0, 255, 255]], np.uint8)
    drawn = np.array([[0, 255, 0, 1]], np.uint8)
    counts_K3 = tally(confusion_matrix(truth, drawn, 2), 2)
    assert counts_K3.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert iou(counts_K3)[0] == 0.5


def test_scores__absent_class_is_in_no_mean() -> None:
    truth, drawn = labels(4), labels(5)
    ious = iou(tally(confusion_matrix(truth, drawn, CLASSES), CLASSES))
    assert [math.isnan(v) for v in ious] == [False, False, False, True, False]
    assert mean_of_present(ious) == pytest.approx(sum(ious[[0, 1, 2, 4]]) / 4, abs=1e-15)
    assert math.isnan(mean_of_present(np.full(3, np.nan)))


def test_scores__predicted_but_never_labelled_counts_as_zero() -> None:
    truth, drawn = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    ious = iou(tally(confusion_matrix(truth, drawn, 2), 2))
    assert ious.tolist() == [0.75, 0.0]
    assert mean_of_present(ious) == 0.375


def test_tally__adds_up_over_images_and_stacks() -> None:
    matrices = np.stack([confusion_matrix(labels(i), labels(i + 9), CLASSES) for i in range(4)])
    assert np.array_equal(tally(matrices, CLASSES).sum(0), tally(matrices.sum(0), CLASSES))


def test_resampled_sums__exact_paired_and_repeatable() -> None:
    counts = np.random.default_rng(0).integers(0, 10**12, (7, 2, 3))
    counts[:, 1] = counts[:, 0]  # two runs that are the same
    sums = resampled_sums(counts, samples=200, seed=3)
    assert sums.shape == (200, 2, 3)
    assert np.array_equal(sums[:, 0], sums[:, 1])
    assert np.array_equal(sums, resampled_sums(counts, samples=200, seed=3))
    assert not np.array_equal(sums, resampled_sums(counts, samples=200, seed=4))
    one = resampled_sums(counts[:1], samples=5)
    assert np.array_equal(one, np.repeat(counts[:1], 5, axis=0))


def test_resampled_sums__draws_as_many_as_there_are() -> None:
    sums = resampled_sums(np.eye(6, dtype=int), samples=500, seed=0)
    assert set(sums.sum(1)) == {6.0}
    assert abs(sums.mean() - 1) < 1e-12
    assert 0.75 < sums.var() < 0.92  # multinomial: 1 - 1/6


def test_interval__holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(300):
        hits = rng.random(60) < 0.3
        sums = resampled_sums(hits[:, None].astype(int), samples=300, seed=trial)
        low, high = interval(sums[:, 0] / 60)
        inside += low <= 0.3 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_interval__leaves_undefined_samples_out() -> None:
    values = np.array([[0.0, np.nan, np.nan], [1.0, 2.0, np.nan]])
    low, high = interval(values, level=1.0)
    np.testing.assert_array_equal(low, [0.0, 2.0, np.nan])
    np.testing.assert_array_equal(high, [1.0, 2.0, np.nan])


def test_mean_of_draws__a_class_that_a_draw_lacks_keeps_its_figure() -> None:
    drawn = np.array([[0.5, 0.1, np.nan], [0.7, np.nan, np.nan]])
    means = mean_of_draws(drawn, np.array([0.6, 0.2, np.nan]))
    np.testing.assert_allclose(means, [0.3, 0.45], atol=1e-15)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dinoidd.metrics", "torch ray pyarrow fsspec PIL"),
        ("dinoidd.evaluation.session", "torch ray"),
    ],
)
def test_imports__leave_heavy_packages_alone(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*[n for n in '{heavy}'.split() if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
