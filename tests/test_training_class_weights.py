"""What a class weighs in the loss."""

import pytest

from dinoidd.errors import ConfigError
from dinoidd.training.class_weights import weighted
from dinoidd.training.config import LossConfig


def test_weighted__rare_classes_weigh_more_and_the_mean_over_pixels_is_one() -> None:
    weights = weighted(LossConfig(class_balance=0.5), {0: 900, 1: 100}, 2).class_weights
    assert weights == pytest.approx((0.8333, 2.5), abs=1e-4)
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1, abs=1e-4)


def test_weighted__an_unseen_class_weighs_as_much_as_the_rarest_seen() -> None:
    weights = weighted(LossConfig(class_balance=0.25), {0: 900, 1: 100, 255: 77}, 3).class_weights
    assert weights[2] == weights[1] > weights[0]


def test_weighted__without_a_balance_nothing_changes() -> None:
    assert weighted(LossConfig(), {0: 9, 1: 1}, 2) == LossConfig()


def test_weighted__given_weights_are_kept_and_have_to_fit() -> None:
    loss = LossConfig(class_weights=(1.0, 2.0), class_balance=0.5)
    assert weighted(loss, {0: 9, 1: 1}, 2) is loss
    with pytest.raises(ConfigError, match=r"has 2 numbers, the class table 3 classes"):
        weighted(loss, {0: 9, 1: 1}, 3)
