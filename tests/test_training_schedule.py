"""The learning rate and the end of patience."""

import math

import pytest

from dinoidd.training.early_stopping import BestEpoch
from dinoidd.training.schedule import rate_factor


def test_rate__cosine_from_one_to_zero() -> None:
    factors = [rate_factor(step, steps=8, warmup=0) for step in range(9)]
    expected = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    assert factors == pytest.approx(expected)
    assert (factors[0], factors[4], factors[8]) == pytest.approx((1, 0.5, 0))


def test_rate__linear_warm_up() -> None:
    factors = [rate_factor(step, steps=20, warmup=4) for step in range(6)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] < 1


def test_rate__warm_up_as_long_as_the_run() -> None:
    assert [rate_factor(s, steps=3, warmup=3) for s in range(3)] == pytest.approx([0.25, 0.5, 0.75])


def test_best_epoch__first_of_equals() -> None:
    best = BestEpoch()
    assert [best.update(e + 1, m) for e, m in enumerate([0.2, 0.2, 0.1, 0.3])] == [
        *(True, False, False, True)
    ]
    assert (best.epoch, best.miou) == (4, 0.3)


def test_best_epoch__nothing_to_judge() -> None:
    best = BestEpoch()
    assert not best.update(1, math.nan)
    assert best.update(2, 0.0)
    assert not best.update(3, math.nan)
    assert best.epoch == 2


def test_best_epoch__patience() -> None:
    best = BestEpoch()
    best.update(3, 0.5)
    assert [best.exhausted(epoch, 2) for epoch in (3, 4, 5)] == [False, False, True]
    assert not best.exhausted(100, None)
