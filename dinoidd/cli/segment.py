"""`dinoidd segment`: a folder or bucket of images in, Parquet out."""

import argparse
import dataclasses
import sys

from dinoidd.cli.options import (
    add_accelerator_option,
    add_base_option,
    add_compile_option,
    add_dtype_option,
    add_input_options,
    add_storage_options,
    inputs_of,
)
from dinoidd.cli.window_options import add_window_options, windows_of
from dinoidd.config import SegmentConfig

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(SegmentConfig)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_input_options(parser)
    parser.add_argument("--output", required=True, metavar="URI", help="a folder or bucket prefix")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint", metavar="FILE", help="path or URL of what `convert` or `train` wrote"
    )
    model.add_argument("--preset", metavar="NAME", help="a preset with random weights, for a trial")
    add_base_option(parser)
    parser.add_argument(
        "--classes",
        metavar="NAME|FILE",
        help="class table of a preset, built in or a .json file (idd); a checkpoint has its own",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of a preset's random weights (0)"
    )
    add_window_options(parser)
    _add_speed(parser)
    _add_limits(parser)
    add_storage_options(parser)
    parser.add_argument(
        "--restart", action="store_true", help="throw the output's earlier results away"
    )
    parser.add_argument(
        "--address",
        help="a Ray cluster; without it RAY_ADDRESS, or an embedded Ray on this machine",
    )


def _add_speed(parser: argparse.ArgumentParser) -> None:
    speed = parser.add_argument_group("speed")
    _number(speed, "--batch-size", "images a forward; with --window, windows")
    _number(speed, "--actors", "processes with a model (one a GPU, or one)")
    _number(speed, "--image-size", "pixels of the model's square (the model's own)")
    _number(speed, "--threads", "downloads at a time in one task")
    add_dtype_option(speed)
    add_compile_option(speed)
    speed.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add_accelerator_option(speed)
    _number(speed, "--rows-per-chunk", "images a unit of work (up to 64)")
    _number(speed, "--rows-per-file", "rows an output file")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    _number(limits, "--max-pixels", "larger images become error rows")
    _number(limits, "--max-bytes", "larger files become error rows")
    limits.add_argument(
        "--outage-patience",
        type=float,
        metavar="SECONDS",
        default=_DEFAULTS["outage_patience"],
        help="how long to wait for a store that is out (600)",
    )
    limits.add_argument(
        "--image-timeout",
        type=float,
        default=_DEFAULTS["image_timeout"],
        metavar="SECONDS",
        help="an image that takes longer to decode or to segment becomes an error row (300)",
    )
    limits.add_argument(
        "--max-error-rate",
        type=float,
        default=_DEFAULTS["max_error_rate"],
        help="a larger share of error rows makes the exit status 1 (0.5)",
    )


def _number(group: argparse._ArgumentGroup, option: str, text: str) -> None:
    default = _DEFAULTS[option[2:].replace("-", "_")]
    shown = f" ({default:,})" if default is not None else ""
    group.add_argument(option, type=int, default=default, metavar="N", help=text + shown)


def run(args: argparse.Namespace) -> int:
    from dinoidd.log import start_logging
    from dinoidd.segment.job import segment
    from dinoidd.segment.summary import format_summary

    start_logging()
    given = {**inputs_of(args), "windows": windows_of(args)}
    fields = {name: getattr(args, name) for name in _DEFAULTS if name not in given}
    config = SegmentConfig(**given, **fields)
    result = segment(
        config,
        device=args.device,
        address=args.address,
        accelerator_type=args.accelerator_type,
    )
    if result.finished_before:
        print(f"{args.output} was finished before: nothing to do (--restart does it again)")
    print(format_summary(result.summary))
    rate = result.summary["error_rate"]
    if rate > config.max_error_rate:
        print(
            f"dinoidd segment: {rate:.1%} of the images are error rows, more than "
            f"--max-error-rate {config.max_error_rate:.1%}",
            file=sys.stderr,
        )
        return 1
    return 0
