"""Recipes: whole configurations under a name or in a file, and single settings on top of them."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dinoidd.errors import ConfigError
from dinoidd.training.config import TrainConfig
from dinoidd.training.settings import (
    Plain,
    build,
    flattened,
    nested,
    parse_settings,
    setting_names,
)

# Every layer is flat: dotted setting names and plain values.
Layer = dict[str, Plain]

# The reference recipe: everything frozen but the classifier, batch 1 with accumulated gradients.
_IDD: Layer = {
    "classes": "idd",
    "trained": "classifier",
    "image_size": 512,
    "batch_size": 8,
    "micro_batch": 1,
    "precision": "bfloat16",
    "patience": 10,
    "workers": 1,
    "use_gpu": True,
    "accelerator_type": "A100",
    "optimizer.learning_rate": 1e-4,
    "optimizer.clip_norm": 1.0,
}
# For two cores and a few minutes: a network of 0.5 M numbers, trained whole from random ones.
_TINY: Layer = {
    "preset": "tiny",
    "image_size": 192,
    "trained": "all",
    "epochs": 60,
    "batch_size": 4,
    "precision": "float32",
    "patience": None,
    "use_gpu": False,
    "loss.kind": "pixel",
    "loss.deep_supervision": True,
    "loss.class_balance": 0.25,
    "optimizer.learning_rate": 3e-3,
    "optimizer.betas": [0.9, 0.99],
    "optimizer.adapter_rate": 1.0,
    "optimizer.backbone_rate": 1.0,
    "optimizer.layer_decay": 1.0,
    "optimizer.warmup_steps": 20,
    "augmentation.flip": True,
}
RECIPES: dict[str, tuple[str, Layer]] = {
    "idd_5ep": ("the reference recipe on IDD, 5 epochs", _IDD | {"epochs": 5}),
    "idd_20ep": ("the reference recipe on IDD, 20 epochs", _IDD | {"epochs": 20}),
    "idd_30ep": ("the reference recipe on IDD, 30 epochs", _IDD | {"epochs": 30}),
    "tiny": ("a laptop: the preset tiny, all of it, from random weights", _TINY),
}
_SUFFIXES = (".toml", ".json")
_BASES = ("checkpoint", "preset")  # a later layer's takes the place of an earlier one's


def recipe(name: str) -> dict[str, Any]:
    """A named recipe's settings, nested as in a recipe file. Raises ConfigError."""
    return nested(_named(name))


def listed() -> str:
    """Every recipe with what it is for and its settings, for a person."""
    lines = []
    for name, (purpose, layer) in RECIPES.items():
        lines.append(f"{name}: {purpose}")
        lines += [f"  {key} = {json.dumps(value)}" for key, value in layer.items()]
    return "\n".join(lines)


def read_recipe(name_or_file: str) -> Layer:
    """A recipe's settings by dotted name; a file may begin with `recipe = "NAME"` and change that.

    The `config.json` of a run is a recipe too.

    Raises:
        ConfigError: no such recipe or file, or the file is not TOML, JSON or a table of settings.
    """
    path = Path(name_or_file)
    if path.suffix not in _SUFFIXES:
        return dict(_named(name_or_file))
    content = _content(path)
    base = content.pop("recipe", None)
    if base is None:
        return flattened(content)
    if not isinstance(base, str):
        raise ConfigError(f"{path}: recipe = {base!r} is no name of a recipe")
    return _over(_named(base), flattened(content))


def resolve(recipe: str | None, settings: Sequence[str] = (), **options: Plain) -> TrainConfig:
    """The configuration that was asked for: defaults, then the recipe, options, and `settings`.

    Args:
        recipe: a name, or a .toml or .json file; None: the defaults.
        settings: texts like `optimizer.learning_rate=3e-4`; they have the last word.
        options: settings by name; None is one that was not given.

    Raises:
        ConfigError: all mistakes in one message.
    """
    layer = read_recipe(recipe) if recipe is not None else {}
    given = {name: value for name, value in options.items() if value is not None}
    texts, problems = parse_settings(settings)
    config, more = build(_over(_over(layer, given), texts))
    if config is None or problems:
        raise ConfigError("; ".join([*problems, *more]))
    return config


def shown(recipe: str | None, settings: Sequence[str] = (), **options: Plain) -> dict[str, Any]:
    """As `resolve` and `to_plain`, without those of data, output and base that nobody named.

    Raises:
        ConfigError: all mistakes in one message.
    """
    layer = read_recipe(recipe) if recipe is not None else {}
    texts, _ = parse_settings(settings)
    known = {n for part in (layer, options, texts) for n, v in part.items() if v is not None}
    wanted = [name for name in ("data", "output") if name not in known]
    if not known.intersection(_BASES):
        wanted.append("checkpoint")
    config = resolve(recipe, settings, **options | dict.fromkeys(wanted, "-"))
    plain = to_plain(config)
    return {name: value for name, value in plain.items() if name not in wanted}


def to_plain(config: TrainConfig) -> dict[str, Any]:
    """As JSON: every setting, nested."""
    return nested({name: _plain(config, name) for name in setting_names()})


def from_plain(plain: Mapping[str, Any]) -> TrainConfig:
    """The configuration of `to_plain`. Raises ConfigError."""
    config, problems = build(flattened(plain))
    if config is None:
        raise ConfigError("; ".join(problems))
    return config


def _named(name: str) -> Layer:
    if name in RECIPES:
        return RECIPES[name][1]
    close = get_close_matches(name, RECIPES, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise ConfigError(
        f"unknown recipe '{name}'{meant}: there are {', '.join(RECIPES)}; "
        "your own is a .toml or .json file"
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of JSON, TOML and UTF-8 alike
        kind = path.suffix[1:].upper()
        raise ConfigError(f"recipe {path} is not {kind}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path} is no table of settings")
    return content


def _over(layer: Mapping[str, Plain], later: Mapping[str, Plain]) -> Layer:
    """A layer with a later one on top."""
    kept = dict(layer)
    if any(later.get(name) is not None for name in _BASES):
        for name in _BASES:
            kept.pop(name, None)
    return kept | dict(later)


def _plain(config: TrainConfig, name: str) -> Plain:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value
