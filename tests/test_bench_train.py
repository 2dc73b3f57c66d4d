"""`dinoidd bench train`: the arithmetic of its figures, and the whole of it on tiny images."""

import argparse
import json
from typing import Any

import pytest
from ray_trainings import embedded_ray

from dinoidd.bench.train import RunTimes, TrainSpeed, compared, format_speed, measure_training
from dinoidd.cli.bench import add_arguments, run, training_config
from dinoidd.errors import ConfigError
from dinoidd.training.config import AugmentationConfig, TrainConfig


def row(seconds: float, loss: float = 1.0, confusion: Any = ((5, 1), (0, 2))) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "train_loss": loss,
        "val_loss": 2 * loss,
        "confusion": [list(counts) for counts in confusion],
    }


def speed_of(**uncached: Any) -> TrainSpeed:
    cached = RunTimes(
        rows=[row(0.7), row(0.5), row(0.5), row(0.3)],
        wall_seconds=20.0,
        extraction_seconds=10.0,
        training_images=8,
        validation_images=2,
    )
    settings = {"rows": [row(40.0), row(30.0)], "wall_seconds": 75.0} | uncached
    same = RunTimes(rows=[row(0.4), row(0.4)], wall_seconds=5.0)
    return compared(cached, RunTimes(**settings), same, ray_seconds=3.0)


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["train", *options])


def test_compared__ratios() -> None:
    speed = speed_of()
    assert (speed.uncached_epoch, speed.cached_epoch) == (30.0, 0.5)
    assert speed.epoch_ratio == 60.0
    assert (speed.uncached_run, speed.cached_run) == (120.0, 12.0)
    assert speed.run_ratio == 10.0


def test_compared__wall_clock_has_what_is_no_epoch() -> None:
    speed = speed_of()
    assert (speed.uncached_other_seconds, speed.cached_other_seconds) == (5.0, 8.0)
    assert (speed.uncached_wall, speed.cached_wall) == (125.0, 20.0)
    assert speed.wall_ratio == 6.25


def test_compared__largest_difference_of_the_same_epochs() -> None:
    speed = speed_of(rows=[row(40.0, 1.25), row(30.0, 0.5)])
    assert speed.train_loss_difference == 0.5
    assert speed.val_loss_difference == 1.0
    assert speed.pixels_judged_otherwise == 0


def test_compared__pixels_that_moved() -> None:
    moved = row(30.0, confusion=((3, 3), (1, 1)))
    assert speed_of(rows=[row(40.0), moved]).pixels_judged_otherwise == 3


def test_compared__runs_of_other_lengths() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        speed_of(rows=[row(40.0)])


def test_format_speed__table() -> None:
    lines = format_speed(speed_of()).splitlines()
    assert "uncached epoch       30.000 s (the fastest of 2)" in lines
    assert "cached epoch          0.500 s (the mean of 4)" in lines
    assert "one epoch              60.0 times as fast" in lines
    assert (
        "4 epochs               10.0 times as fast, with the extraction (120 s, extrapolated, to "
        "12.0 s)" in lines
    )
    assert "confusion matrices differ by 0 pixels" in lines


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"trained": "decoder"}, "trained=decoder, "),
        ({"augmentation": AugmentationConfig(flip=True)}, "flip=True"),
    ],
)
def test_measure_training__refuses_what_differs_by_itself(
    settings: dict[str, Any], told: str
) -> None:
    config = TrainConfig(data="d", output="o", preset="tiny", **settings)
    with pytest.raises(ConfigError, match=told):
        measure_training(config, uncached_epochs=1)


@pytest.mark.parametrize(
    ("options", "train", "val"),
    [
        ((), 96, 13),
        (("--images", "3"), 3, 1),
        (("--data", "d"), None, None),
        (("--data", "d", "--images", "50"), 50, 7),
    ],
)
def test_training_config__images(
    options: tuple[str, ...], train: int | None, val: int | None
) -> None:
    config = training_config(parsed(*options), "folder")
    assert (config.max_train_images, config.max_val_images) == (train, val)
    assert config.data == ("d" if "--data" in options else "folder/scenes")
    assert (config.precision, config.preset, config.image_size) == ("float32", "small", 512)


def test_training_config__checkpoint_takes_the_place_of_the_preset() -> None:
    config = training_config(parsed("--checkpoint", "7b.safetensors", "--device", "cpu"), "folder")
    assert (config.checkpoint, config.preset, config.use_gpu) == ("7b.safetensors", None, False)


@pytest.mark.slow
def test_bench_train__both_ways_are_the_same_training(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--preset tiny --image-size 64 --images 8 --epochs 3 --device cpu --json"
    with embedded_ray():
        assert run(parsed(*options.split())) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["training_images"], figures["validation_images"]) == (8, 1)
    assert (len(figures["cached_epochs"]), len(figures["uncached_epochs"])) == (3, 2)
    assert figures["extraction_seconds"] > 0
    assert figures["train_loss_difference"] < 1e-5
    assert figures["val_loss_difference"] < 1e-5
    assert figures["pixels_judged_otherwise"] == 0
    ratio = min(figures["uncached_epochs"]) / figures["cached_epoch"]
    assert figures["epoch_ratio"] == pytest.approx(ratio)
