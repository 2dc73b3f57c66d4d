"""`dinoidd train` up to where the run begins."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dinoidd.cli import main
from dinoidd.errors import ClusterError
from dinoidd.training.config import TrainConfig
from dinoidd.training.recipes import RECIPES, from_plain, resolve


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, str | None]]:
    """What a run was asked for, in place of the run."""
    calls: list[tuple[TrainConfig, str | None]] = []

    def train(config: TrainConfig, *, address: str | None = None) -> SimpleNamespace:
        if config.output == "full":
            raise ClusterError("no such node")
        if config.output == "stopped":
            raise KeyboardInterrupt
        calls.append((config, address))
        return SimpleNamespace(summary={"best_miou": 0.51234, "epochs": 3, "classes": ["a"]})

    monkeypatch.setitem(sys.modules, "dinoidd.train.driver", SimpleNamespace(train=train))
    return calls


def test_train__options_and_settings(
    asked: list[tuple[TrainConfig, str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    line = "train --data d --recipe tiny --output o --epochs 3 --workers 2 --address auto"
    status = main([*line.split(), "--set", "seed=4", "threads=1", "--set", "loss.kind=set"])
    assert status == 0
    expected = resolve(
        "tiny", ["seed=4", "threads=1", "loss.kind=set"], data="d", output="o", epochs=3, workers=2
    )
    assert asked == [(expected, "auto")]
    assert capsys.readouterr().out.splitlines() == [
        "best miou                    0.5123",
        "epochs                       3",
    ]


@pytest.mark.parametrize(
    ("device", "gpu", "kind"),
    [("auto", True, "A100"), ("cuda", True, "A100"), ("cpu", False, None)],
)
def test_train__device(
    asked: list[tuple[TrainConfig, str | None]], device: str, gpu: bool, kind: str | None
) -> None:
    line = f"train --data d --recipe idd_5ep --checkpoint c --output o --device {device}"
    assert main(line.split()) == 0
    assert (asked[0][0].use_gpu, asked[0][0].accelerator_type) == (gpu, kind)


def test_train__exit_status(
    asked: list[tuple[TrainConfig, str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "--data", "d", "--recipe", "tiny", "--output"]
    assert main([*line, "full"]) == 2
    assert main([*line, "stopped"]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "dinoidd train: no such node",
        "dinoidd train: interrupted",
    ]
    assert main(["train", "--recipe", "tiny", "--set", "epochs=0"]) == 2
    assert capsys.readouterr().err == (
        "dinoidd train: data is not given: name it with --data; output is not given: name it with "
        "--output; epochs=0: at least 1 is needed\n"
    )
    assert asked == []


def test_train__show_is_a_recipe(
    asked: list[tuple[TrainConfig, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "d", "--recipe", "tiny", "--output", "o", "--show"]) == 0
    shown = capsys.readouterr().out
    assert from_plain(json.loads(shown)) == resolve("tiny", data="d", output="o")
    (tmp_path / "shown.json").write_text(shown)
    assert main(["train", "--recipe", str(tmp_path / "shown.json")]) == 0
    assert asked == [(resolve("tiny", data="d", output="o"), None)]


def test_train__show_needs_neither_data_nor_output(
    asked: list[tuple[TrainConfig, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody named is left out, so that what is shown stays a recipe."""
    assert main(["train", "--recipe", "idd_5ep", "--show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["optimizer"]["learning_rate"] == 1e-4
    assert not {"data", "output", "checkpoint"} & shown.keys()
    recipe = tmp_path / "shown.json"
    recipe.write_text(json.dumps(shown))
    assert main(["train", "--recipe", str(recipe)]) == 2
    assert capsys.readouterr().err == (
        "dinoidd train: data is not given: name it with --data; output is not given: name it with "
        "--output; give either checkpoint=FILE or preset=NAME (random weights) as the base\n"
    )
    own = tmp_path / "own.toml"
    own.write_text('recipe = "tiny"\ndata = "streets"\n')
    assert main(["train", "--recipe", str(own), "--show", "--set", "epochs=2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["data"], shown["preset"], shown["epochs"]) == ("streets", "tiny", 2)
    assert "output" not in shown
    assert main(["train", "--recipe", "tiny", "--show", "--set", "epochs=0"]) == 2
    assert capsys.readouterr().err == "dinoidd train: epochs=0: at least 1 is needed\n"
    assert asked == []


def test_train__list_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list-recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == list(RECIPES)
    assert '  preset = "tiny"' in lines
