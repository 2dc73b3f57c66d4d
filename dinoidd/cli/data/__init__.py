"""`dinoidd data`: make, prepare and look through data sets; each action is a module of its own."""

import argparse
import importlib

from dinoidd.cli.data.generate import parse_size, parse_splits

__all__ = ["SUMMARY", "add_arguments", "parse_size", "parse_splits", "run"]
SUMMARY = "data sets: generate street scenes, draw label images, inspect"
ACTIONS = {
    "generate": "draw street scenes with labels, in IDD's layout",
    "labels": "draw label images from IDD's polygon files",
    "inspect": "count frames, labels, raw values and classes; warn of what is odd",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        action = importlib.import_module(f"dinoidd.cli.data.{name}")
        action.add_arguments(actions.add_parser(name, help=summary, description=action.DESCRIPTION))


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    status: int = importlib.import_module(f"dinoidd.cli.data.{args.action}").run(args)
    return status
