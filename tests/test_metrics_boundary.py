"""Boundary IoU against the paper's definition: one class at a time, masks eroded pixel by pixel."""

import numpy as np
import pytest

from dinoidd.metrics import boundary_counts, boundary_distance, boundary_iou
from dinoidd.metrics.boundary import near_outline

CLASSES = 4


def blobs(seed: int, shape: tuple[int, int] = (40, 52)) -> np.ndarray:
    """Rectangles of classes and void."""
    rng = np.random.default_rng(seed)
    ids = np.full(shape, rng.integers(0, CLASSES), np.uint8)
    for _ in range(12):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        height, width = rng.integers(3, 22, 2)
        ids[y : y + height, x : x + width] = rng.choice([0, 1, 2, 3, 255])
    return ids


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """A pixel stays while all its eight neighbours are there; outside the image nothing is."""
    height, width = mask.shape
    for _ in range(times):
        padded = np.pad(mask, 1)
        shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        mask = np.logical_and.reduce(shifts)
    return mask


def expected_counts(truth: np.ndarray, drawn: np.ndarray, distance: int) -> list[list[int]]:
    drawn = np.where(truth == 255, 255, drawn)
    rows = []
    for c in range(CLASSES):
        g, p = truth == c, drawn == c
        g_d, p_d = g & ~eroded(g, distance), p & ~eroded(p, distance)
        rows.append([int((g_d & p_d).sum()), int(g_d.sum()), int(p_d.sum())])
    return rows


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 19, 60])
@pytest.mark.parametrize("seed", range(4))
def test_boundary_counts__equal_erosion_class_by_class(seed: int, distance: int) -> None:
    truth, drawn = blobs(seed), blobs(seed + 50)
    counts_K3 = boundary_counts(truth, drawn, CLASSES, distance)
    assert counts_K3.tolist() == expected_counts(truth, drawn, distance)


def test_boundary_iou__from_counts() -> None:
    values = boundary_iou(np.array([[3, 5, 4], [0, 2, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(values, [0.5, 0.0, np.nan])


def test_boundary_iou__sees_what_iou_does_not() -> None:
    truth, drawn = np.zeros((2, 200, 200), np.uint8)
    truth[50:150, 50:150] = 1
    drawn[52:152, 50:150] = 1  # two pixels lower
    counts_K3 = boundary_counts(truth, drawn, 2, 3)
    inside = ((truth == 1) & (drawn == 1)).sum() / ((truth == 1) | (drawn == 1)).sum()
    assert inside > 0.96
    assert boundary_iou(counts_K3)[1] < 0.7


def test_boundary_distance__share_of_the_diagonal() -> None:
    assert boundary_distance(720, 1280) == 7
    assert boundary_distance(1080, 1920) == 11
    assert boundary_distance(720, 1280, 0.02) == 29
    assert boundary_distance(20, 20) == 1


def test_near_outline__a_distance_beyond_the_image() -> None:
    assert near_outline(np.zeros((3, 5), np.uint8), 100).all()
    assert near_outline(np.zeros((1, 1), np.uint8), 1).all()
