"""Recipes by name and from files, and single settings on top of them."""

import json
from pathlib import Path

import pytest

from dinoidd.errors import ConfigError
from dinoidd.training.config import AugmentationConfig, TrainConfig
from dinoidd.training.recipes import RECIPES, from_plain, recipe, resolve, to_plain
from dinoidd.training.settings import setting_names

PLACES = {"data": "d", "output": "o"}


def refusal(name: str | None, settings: list[str] = [], **options: object) -> str:  # noqa: B006
    with pytest.raises(ConfigError) as error:
        resolve(name, settings, **options)
    return str(error.value)


@pytest.mark.parametrize(("name", "epochs"), [("idd_5ep", 5), ("idd_20ep", 20), ("idd_30ep", 30)])
def test_recipe__of_the_reference(name: str, epochs: int) -> None:
    config = resolve(name, checkpoint="7b.safetensors", **PLACES)
    assert config.epochs == epochs
    assert (config.image_size, config.batch_size, config.network_batch) == (512, 8, 1)
    assert config.forward_batch == 8  # of the cached classifier
    assert (config.trained, config.uses_cache, config.precision) == ("classifier", True, "bfloat16")
    assert (config.optimizer.learning_rate, config.optimizer.clip_norm) == (1e-4, 1.0)
    assert (config.patience, config.workers) == (10, 1)
    assert (config.accelerator_type, config.use_gpu) == ("A100", True)


def test_recipe__tiny_trains_everything_from_random_weights() -> None:
    config = resolve("tiny", **PLACES)
    assert (config.preset, config.checkpoint, config.trained) == ("tiny", None, "all")
    assert not config.uses_cache


def test_recipe__is_nested_plain_data() -> None:
    settings = recipe("idd_5ep")
    assert settings["optimizer"] == {"learning_rate": 1e-4, "clip_norm": 1.0}
    assert json.loads(json.dumps(settings)) == settings


def test_resolve__types_of_settings() -> None:
    texts = [
        *("epochs=1_000", "optimizer.learning_rate=3e-4", "augmentation.scale=0.5,2"),
        *("augmentation.flip=yes", "patience=none", "cached=false", "max_val_images= 7 "),
        *("optimizer.clip_norm=2", "classes=mine=1.json", "loss.deep_supervision=none"),
    ]
    config = resolve("tiny", texts, **PLACES)
    assert config.epochs == 1000
    assert config.optimizer.learning_rate == 3e-4
    assert config.augmentation == AugmentationConfig(flip=True, scale=(0.5, 2.0))
    assert (config.patience, config.cached, config.max_val_images) == (None, False, 7)
    assert config.optimizer.clip_norm == 2.0
    assert isinstance(config.optimizer.clip_norm, float)
    assert config.classes == "mine=1.json"
    assert config.loss.deep_supervision is None


def test_resolve__settings_over_options_over_recipe() -> None:
    config = resolve("tiny", ["epochs=3"], epochs=2, batch_size=6, seed=None, **PLACES)
    assert (config.epochs, config.batch_size, config.seed) == (3, 6, 0)


def test_resolve__a_base_takes_the_place_of_the_recipes() -> None:
    config = resolve("tiny", checkpoint="x.safetensors", **PLACES)
    assert (config.checkpoint, config.preset) == ("x.safetensors", None)
    config = resolve("tiny", ["preset=small"], **PLACES)
    assert (config.checkpoint, config.preset) == (None, "small")


def test_resolve__all_mistakes_in_one_message() -> None:
    texts = ["optimizer.lr=1", "epohs=3", "epochs=many", "cached=perhaps", "seed", "patience=0"]
    message = refusal("tiny", [*texts, "augmentation.scale=2"], data="d", workers=3)
    assert message == "; ".join(
        [
            "'seed' is no setting: write KEY=VALUE",
            "unknown settings optimizer.lr (did you mean optimizer.learning_rate?), "
            "epohs (did you mean epochs?): there are " + ", ".join(setting_names()),
            "epochs=many: expected a whole number",
            "cached=perhaps: expected true or false or none",
            "augmentation.scale=2.0: expected two numbers like 0.5,2",
            "output is not given: name it with --output",
            "patience=0: at least 1 is needed",
            "batch_size=4 is not a multiple of workers=3 x micro_batch=1: a step is made of whole "
            "forwards",
        ]
    )


def test_resolve__the_nearest_name_may_be_in_a_group() -> None:
    assert "unknown setting clip_norm (did you mean optimizer.clip_norm?): there are data, " in (
        refusal("tiny", ["clip_norm=1"], **PLACES)
    )
    assert "unknown setting zzz: there are " in refusal("tiny", ["zzz=1"], **PLACES)


@pytest.mark.parametrize("value", ["nan", "inf", "true", "0x1"])
def test_resolve__no_number(value: str) -> None:
    message = refusal("tiny", [f"optimizer.learning_rate={value}"], **PLACES)
    shown = value if value in ("true", "0x1") else str(float(value))
    assert message == f"optimizer.learning_rate={shown}: expected a number"


def test_resolve__without_a_recipe_a_base_is_needed() -> None:
    assert refusal(None, **PLACES).startswith("give either checkpoint=FILE or preset=NAME")
    assert resolve(None, preset="tiny", **PLACES) == TrainConfig(preset="tiny", **PLACES)


def test_recipe_file__starts_from_a_named_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'recipe = "tiny"\nepochs = 7\npatience = "none"\n'
        "[augmentation]\nscale = [1, 2]\nphotometric = 1.0\n"
    )
    config = resolve(str(path), **PLACES)
    expected = resolve(
        "tiny",
        ["augmentation.scale=1,2", "augmentation.photometric=1", "patience=none"],
        epochs=7,
        **PLACES,
    )
    assert config == expected


def test_recipe_file__a_runs_configuration_is_one(tmp_path: Path) -> None:
    config = resolve("idd_20ep", ["augmentation.scale=0.5,2"], checkpoint="c", **PLACES)
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(plain) == config
    (tmp_path / "config.json").write_text(json.dumps(plain))
    again = resolve(str(tmp_path / "config.json"), output="elsewhere")
    assert to_plain(again) == plain | {"output": "elsewhere"}


def test_from_plain__refuses_what_it_does_not_know() -> None:
    plain = to_plain(resolve("tiny", **PLACES))
    with pytest.raises(ConfigError, match=r"^unknown setting loss\.sort \(did you mean "):
        from_plain(plain | {"loss": {"sort": 1}})
    with pytest.raises(ConfigError, match=r"^epochs=1\.5: expected a whole number$"):
        from_plain(plain | {"epochs": 1.5})
    with pytest.raises(ConfigError, match=r"^unknown setting optimizer \(did you mean "):
        from_plain(plain | {"optimizer": 3})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "epochs = ", "recipe {path} is not TOML: "),
        ("a.json", "{", "recipe {path} is not JSON: "),
        ("a.json", "[1]", "recipe {path} is no table of settings"),
        ("a.toml", "recipe = 3", "{path}: recipe = 3 is no name of a recipe"),
        ("a.toml", 'recipe = "tinny"', "unknown recipe 'tinny' (did you mean tiny?)"),
    ],
)
def test_recipe_file__broken(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert refusal(str(path)).startswith(message.format(path=path))


def test_recipe__unknown(tmp_path: Path) -> None:
    assert refusal("idd20ep") == (
        f"unknown recipe 'idd20ep' (did you mean idd_20ep?): there are {', '.join(RECIPES)}; your "
        "own is a .toml or .json file"
    )
    gone = tmp_path / "gone.toml"
    assert refusal(str(gone)) == f"recipe {gone} cannot be read: No such file or directory"
