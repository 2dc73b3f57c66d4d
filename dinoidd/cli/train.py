"""`dinoidd train`: a data set and a recipe in, trained weights out."""

import argparse
from typing import TYPE_CHECKING, Any

from dinoidd.cli.options import add_storage_options

if TYPE_CHECKING:
    from dinoidd.training.config import TrainConfig

# Options that are settings of the same name.
_SETTINGS = (
    *("data", "output", "checkpoint", "preset", "classes", "cache", "epochs", "batch_size"),
    *("image_size", "workers", "seed", "endpoint_url"),
)
_OF_BEST = ("train_loss", "val_loss", "pixel_accuracy")  # of a run's summary
EXAMPLES = """\
examples:
  dinoidd train --data scenes --recipe tiny --output run
  dinoidd train --data s3://b/idd --recipe idd_20ep --checkpoint 7b.safetensors --output s3://b/run
  dinoidd train --data CAMVID --classes camvid --recipe mine.toml --output run \\
                --set optimizer.learning_rate=3e-4 augmentation.scale=0.5,2

The same command again goes on where a run stopped. A recipe file is TOML or JSON; it may start from a
named one (recipe = "tiny"), and the config.json of a run is one too.
exit status: 0; 2 for an error; 130 when interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--data", metavar="URI", help="a data set: folder or bucket prefix")
    add("--recipe", metavar="NAME|FILE", help="named settings; see --list-recipes")
    add("--output", metavar="URI", help="a folder or bucket prefix")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", metavar="FILE", help="the base: path or URL of a model")
    model.add_argument("--preset", metavar="NAME", help="instead of it, random weights")
    add("--classes", metavar="NAME|FILE", help="class table, built in or a .json file (idd)")
    add(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of --show, by its dotted name",
    )
    _number(parser, "--epochs", "times through the training split")
    _number(parser, "--batch-size", "images a step, over all workers")
    _number(parser, "--image-size", "pixels of the model's square")
    _number(parser, "--seed", "of weights, order, augmentation and sampled points")
    add("--cache", metavar="URI", help="where the frozen network's output is kept (OUTPUT/cache)")
    _number(parser, "--workers", "processes that train together")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="(auto: the recipe's)")
    add_storage_options(parser)
    add("--address", help="a Ray cluster; without it RAY_ADDRESS, or an embedded Ray")
    add(
        "--show",
        action="store_true",
        help="print the configuration as JSON, a recipe too, and stop",
    )
    add("--list-recipes", action="store_true", help="print the recipes, and stop")


def _number(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    parser.add_argument(option, type=int, metavar="N", help=f"{text} (the recipe's)")


def run(args: argparse.Namespace) -> int:
    if args.list_recipes:
        from dinoidd.training.recipes import listed

        print(listed())
        return 0
    if args.show:
        import json

        from dinoidd.training.recipes import shown

        print(json.dumps(shown(args.recipe, args.settings, **_options(args)), indent=2))
        return 0
    config = configuration(args)
    from dinoidd.log import start_logging
    from dinoidd.train.driver import train

    start_logging()
    result = train(config, address=args.address)
    for name, value in result.summary.items():
        if not isinstance(value, dict | list):
            label = name.replace("_", " ") + (" (best epoch)" if name in _OF_BEST else "")
            print(f"{label:<28} {_shown(value)}")
    return 0


def configuration(args: argparse.Namespace) -> "TrainConfig":
    """What the options ask for. Raises ConfigError."""
    from dinoidd.training.recipes import resolve

    return resolve(args.recipe, args.settings, **_options(args))


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Settings that are options, by name; None is one that was not given."""
    options = {name: getattr(args, name) for name in _SETTINGS}
    if args.device != "auto":
        options["use_gpu"] = args.device == "cuda"
    if args.device == "cpu":
        options["accelerator_type"] = "none"  # which a recipe may name
    return options


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
