"""Sweeps: several trainings over one cache."""

import json
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
from ray_trainings import embedded_ray, make_scenes, small

from dinoidd.cli.sweep import parse_grid, print_trials
from dinoidd.errors import ConfigError, DivergedError, OutputError
from dinoidd.storage import Store
from dinoidd.train.driver import train
from dinoidd.train.sweep import SweepResult, _write_ranking, make_variants, sweep
from dinoidd.train.trial import Trial, run_trial
from dinoidd.training.recipes import resolve

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def ray_of_the_module() -> Iterator[None]:
    with embedded_ray():
        yield


def test_sweep__ranks_all_combinations_and_writes_the_best_recipe(
    ray_of_the_module: None, scenes: Path, tmp_path: Path
) -> None:
    output = tmp_path / "sweep"
    grid = {"optimizer.learning_rate": ["1e-4", "3e-3"], "loss.kind": ["set", "pixel"]}
    config = small(scenes, output, epochs=2)
    result = sweep(config, grid)
    assert [t.miou for t in result.trials] == sorted((t.miou for t in result.trials), reverse=True)
    assert {tuple(t.settings.values()) for t in result.trials} == {
        *((1e-4, "set"), (1e-4, "pixel")),
        *((3e-3, "set"), (3e-3, "pixel")),
    }
    caches = sorted((output / "cache").iterdir())
    assert len(caches) == 2
    assert all((cache / "_SUCCESS").exists() for cache in caches)
    best = result.trials[0]
    recipe = resolve(result.recipe, output=str(tmp_path / "run"))
    assert recipe.optimizer.learning_rate == best.settings["optimizer.learning_rate"]
    summary = train(recipe).summary
    assert summary["extraction_seconds"] == 0
    assert summary["best_miou"] == pytest.approx(best.miou, abs=1e-9)
    times = [cache.stat().st_mtime_ns for cache in caches]
    assert sweep(config, grid) == result  # finished: nothing is trained again
    assert [cache.stat().st_mtime_ns for cache in caches] == times
    with pytest.raises(OutputError, match="belongs to another sweep: epochs was 2 and is 3"):
        sweep(small(scenes, output, epochs=3), grid)
    assert len(json.loads((output / "sweep.json").read_text())["trials"]) == 4


@pytest.mark.slow
def test_sweep__a_trial_that_diverges_is_the_last(
    ray_of_the_module: None, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(scenes, tmp_path / "sweep", epochs=2)
    grid = {"optimizer.learning_rate": ["1e30", "1e-3"]}
    result = sweep(config, grid)
    good, bad = result.trials
    assert (good.error, good.settings) == (None, {"optimizer.learning_rate": 1e-3})
    assert math.isnan(bad.miou)
    assert "lower optimizer.learning_rate (now 1e+30)" in str(bad.error)
    print_trials(result, list(grid))
    assert f"diverged: {bad.error}\n" in capsys.readouterr().out
    written = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["trials"]
    assert [t["miou"] for t in written] == [good.miou, None]
    assert resolve(result.recipe, output="x").optimizer.learning_rate == 1e-3
    assert sweep(config, grid).trials[0] == good  # nothing is trained again
    with pytest.raises(DivergedError, match="all 1 trials diverged; of the first one the "):
        sweep(small(scenes, tmp_path / "all", epochs=1), {"optimizer.learning_rate": ["1e30"]})


def test_trial__that_diverged_is_behind_one_without_a_judged_pixel() -> None:
    diverged = _trial(math.nan, error="the loss is not finite")
    assert sorted([diverged, _trial(math.nan), _trial(0.2), _trial(0.3)], key=lambda t: t.rank) == [
        _trial(0.3),
        _trial(0.2),
        ANY,
        diverged,
    ]


def _trial(miou: float, error: str | None = None) -> Trial:
    return Trial(settings={}, miou=miou, epoch=1, val_loss=1.0, seconds=1.0, error=error)


def test_run_trial__one_that_diverges_has_a_result_and_the_last_rank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reported: list[dict[str, Any]] = []

    def diverge(*_: object) -> None:
        raise DivergedError("the loss is nan")

    monkeypatch.setattr("dinoidd.train.trial._fit", diverge)
    monkeypatch.setattr("dinoidd.train.trial.tune.report", reported.append)
    monkeypatch.setattr("torch.set_num_threads", int)
    for change in (partial(monkeypatch.setenv, value=""), monkeypatch.delenv):  # and restored
        change("PYTORCH_CUDA_ALLOC_CONF")
    plan: Any = SimpleNamespace(output=Store.open(str(tmp_path)))
    run_trial({"trial": 0}, plans=[(plan, plan)], device="cpu")
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    (end,) = reported
    trials = [Trial(settings={"lr": 9}, **end)]
    for miou in (0.2, math.nan, 0.3):
        reached = {"miou": miou, "epoch": 1, "val_loss": 1.0, "seconds": 1.0}
        trials.append(Trial(settings={"lr": 1}, **reached))
    _write_ranking(plan, [trial.settings for trial in trials], trials)
    rows = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    assert [row["miou"] for row in rows] == [0.3, 0.2, None, None]
    print_trials(SweepResult(trials=trials, recipe="r"), ["lr"])
    assert "9   diverged: the loss is nan\n" in capsys.readouterr().out


def test_make_variants__tells_what_cannot_be_swept() -> None:
    config = small("data", "out")
    with pytest.raises(ConfigError) as caught:
        make_variants(config, {"seed": ["1", "2"]})
    assert str(caught.value) == "seed cannot be swept: it is the same for all trials"
    with pytest.raises(
        ConfigError, match=r"unknown setting lr \(did you mean optimizer.learning_rate"
    ):
        make_variants(config, {"lr": ["1"]})
    with pytest.raises(ConfigError, match=r"trained=all has none"):
        make_variants(small("data", "out", trained="all"), {"epochs": ["1"]})
    with pytest.raises(
        ConfigError, match=r"^optimizer\.betas cannot be swept: its value is several"
    ):
        make_variants(config, {"optimizer.betas": ["0.9", "0.99"]})
    with pytest.raises(ConfigError, match=r"^loss\.class_weights cannot be swept"):
        make_variants(config, {"loss.class_weights": ["1", "2"]})
    with pytest.raises(ConfigError, match="a sweep needs values"):
        make_variants(config, {})


def test_parse_grid__values_by_key() -> None:
    assert parse_grid(["a.b=1,2", "c=x"]) == {"a.b": ["1", "2"], "c": ["x"]}
    with pytest.raises(ConfigError, match="--grid a=1,: write KEY=VALUE,VALUE"):
        parse_grid(["a=1,"])
    with pytest.raises(ConfigError, match="--grid a is given twice"):
        parse_grid(["a=1", "a=2"])
