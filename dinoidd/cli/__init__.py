"""The command line. Each command is a module with `add_arguments(parser)` and `run(args)`."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from dinoidd import __version__
from dinoidd.errors import DinoiddError

# In the order of a user's day. The modules import heavy packages inside run(), so --help is instant.
COMMANDS = {
    "segment": "segment a folder or bucket of images into Parquet",
    "predict": "segment single images into a folder of pictures each",
    "index": "list the images of a folder or bucket into a manifest",
    "query": "ask a finished run with SQL",
    "show": "draw images beside their masks",
    "status": "how far a run is: done, left, errors, images/s, time left",
    "retry": "try the error rows of a finished run again",
    "compact": "make the files of a finished run large",
    "report": "one web page about a run: figures, charts, pictures",
    "export": "masks as PNG folders, COCO, Cityscapes, Hugging Face or FiftyOne",
    "evaluate": "compare predictions with ground truth, and runs with each other",
    "diff": "compare two runs over the same images, pixel by pixel",
    "verify": "prove that a run has exactly one row an image",
    "data": "data sets: generate street scenes, draw label images, inspect",
    "train": "train a model on labelled images, by a recipe",
    "sweep": "train a classifier with many settings over one cache",
    "model": "describe a model: parameters and cost",
    "plan": "what a training will need: does it fit a GPU?",
    "convert": "turn published checkpoints into one safetensors file",
    "parity": "compare the model with a reference's recorded outputs",
    "jobs": "train, segment and evaluate on a Ray cluster, from here",
    "bench": "measure speed: the pipeline against a plain loop",
}
USER_ERROR = 2
BUG = 70  # EX_SOFTWARE; Python's own 1 is what commands say of results
PIPE_CLOSED = 141  # what a shell shows for a tool that SIGPIPE ended; never 0 for a failure


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status is returned.

    2 is the user's error, told in one sentence; 70 an error that nobody foresaw, with its traceback; 1
    what the command says of its results.
    """
    parser = build_parser(sys.argv[1:] if argv is None else argv)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # told with the usage of the command, not of all of dinoidd
        args.mistaken(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return args.run(args)
    except DinoiddError as error:
        print(f"dinoidd {args.command}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"dinoidd {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # `dinoidd query ... | head` needs no traceback
        return PIPE_CLOSED
    except Exception as error:
        traceback.print_exc()
        print(
            f"dinoidd {args.command}: ended by an unexpected {type(error).__name__}, told above: a bug, "
            "or the end of something beneath it, like a Ray cluster that is gone",
            file=sys.stderr,
        )
        return BUG


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole parser; only the command that `argv` names is imported."""
    parser = argparse.ArgumentParser(
        prog="dinoidd",
        description="DINOv3 segmentation of street images, from a bucket to Parquet.",
    )
    parser.add_argument("--version", action="version", version=f"dinoidd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        if name in argv:
            module = importlib.import_module(f"dinoidd.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run, mistaken=command.error)
    return parser
