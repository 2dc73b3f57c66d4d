"""`dinoidd sweep`: which settings train the classifier best, over one cache."""

import argparse
from typing import TYPE_CHECKING

from dinoidd.cli import train as train_command
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.train.sweep import SweepResult

EXAMPLES = """\
examples:
  dinoidd sweep --data s3://b/idd --recipe idd_5ep --checkpoint 7b.safetensors --output s3://b/sweep \\
                --grid optimizer.learning_rate=1e-4,3e-4,1e-3 --grid loss.kind=set,pixel

The network runs once over the images for each kind of loss; a trial then takes seconds. The best recipe
is written as OUTPUT/best_recipe.json, for `dinoidd train --recipe`.
exit status: 0; 2 for an error; 130 when interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    train_command.add_arguments(parser)
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="a setting's values; every combination of all --grid is tried",
    )


def run(args: argparse.Namespace) -> int:
    if args.list_recipes or args.show:
        return train_command.run(args)
    from dinoidd.log import start_logging
    from dinoidd.train.sweep import sweep

    start_logging()
    grid = parse_grid(args.grid)
    result = sweep(train_command.configuration(args), grid, address=args.address)
    print_trials(result, list(grid))
    print(f"best recipe: {result.recipe}")
    return 0


def print_trials(result: "SweepResult", names: list[str]) -> None:
    """A table of the trials: the settings that were swept, and what each came to."""
    rows = [[str(trial.settings[name]) for name in names] for trial in result.trials]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    heads = [name.ljust(width) for name, width in zip(names, widths, strict=True)]
    print("  ".join([*heads, "  mIoU", "epoch", "val loss", "seconds"]))
    for trial, row in zip(result.trials, rows, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        figures = f"{trial.miou:6.2%}  {trial.epoch:5}  {trial.val_loss:8.4f}  {trial.seconds:7.1f}"
        print("  ".join([*cells, figures if trial.error is None else f"diverged: {trial.error}"]))


def parse_grid(texts: list[str]) -> dict[str, list[str]]:
    """`key=a,b` texts as values by key. Raises ConfigError."""
    grid: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise ConfigError(f"--grid {text}: write KEY=VALUE,VALUE")
        if name in grid:
            raise ConfigError(f"--grid {name} is given twice: name all its values at once")
        grid[name] = values.split(",")
    return grid
