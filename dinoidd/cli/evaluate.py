"""`dinoidd evaluate`: predictions against ground truth, and one run against another."""

import argparse
import sys
from typing import TYPE_CHECKING

from dinoidd.cli.options import (
    add_base_option,
    add_dtype_option,
    add_storage_options,
    storage_options,
)
from dinoidd.cli.window_options import add_window_options, windows_of
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.classes import ClassTable
    from dinoidd.evaluation.config import EvaluationConfig
    from dinoidd.evaluation.predictions import Predictions
    from dinoidd.evaluation.runner import Runner

INCOMPLETE = 1
SPLIT = "val"
EXAMPLES = """\
examples:
  dinoidd evaluate --data IDD --split val --predictions OUTPUT --json run.json --report REPORT
  dinoidd evaluate --data IDD --split val --predictions PNGS --resolution 1080
  dinoidd evaluate --data IDD --split val --checkpoint model.safetensors --against run.json
  dinoidd evaluate --ground-truth CAMVID/valannot --classes camvid --predictions OUTPUT

exit status: 0; 1 where frames or files are missing or unusable (the rest is evaluated); 2 for an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--ground-truth", metavar="DIR", help="a folder of label images (PNG)")
    truth.add_argument(
        "--data", metavar="ROOT", help="a data set, in a layout that data inspect knows"
    )
    parser.add_argument("--split", metavar="NAME", help=f"of --data (default: {SPLIT})")
    masks = parser.add_mutually_exclusive_group(required=True)
    masks.add_argument(
        "--predictions", metavar="DIR", help="a folder of PNGs, or the output of `dinoidd segment`"
    )
    masks.add_argument("--checkpoint", metavar="FILE", help="segment the images with this model")
    add_base_option(parser)
    parser.add_argument(
        "--images", metavar="DIR", help="for --checkpoint (default: the split's of --data)"
    )
    _add_reading(parser)
    _add_results(parser)
    _add_running(parser)
    add_window_options(parser)
    add_storage_options(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("reading").add_argument
    add("--classes", metavar="TABLE", help="class table, name or .json (the run's, or idd)")
    add("--encoding", default="official", metavar="official|road255", help="of IDD's labels")
    add(
        "--resolution",
        metavar="720|1080|480|240|native",
        help="what both are resized to (default: 720 for IDD, native otherwise)",
    )
    add("--label-suffix", metavar="KIND", help="labels are *_gtFine_KIND.png (the class table's)")
    add("--allow-missing", action="store_true", help="frames without a partner are no failure")
    add(
        "--allow-size-mismatch",
        action="store_true",
        help="at native size, resize a prediction of another size like its label; else it is left out",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("results").add_argument
    add("--json", metavar="FILE", help="everything, and beside it FILE's .counts.parquet")
    add("--report", metavar="DIR", help="a folder of text, JSON, CSV and pictures")
    add(
        "--against",
        metavar="RUN",
        help="compare with an earlier --json, or with other predictions: what got better or worse; "
        "a change is judged where at least 10 frames show it",
    )
    add("--boundary-ratio", type=float, metavar="SHARE", help="boundary width / diagonal (0.005)")
    add("--bootstrap-samples", type=int, metavar="N", help="draws of the intervals (1000)")
    add("--seed", type=int, default=0, help="of the intervals (default: %(default)s)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running")
    add = group.add_argument
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="of --checkpoint")
    add_dtype_option(group)
    add("--workers", type=int, metavar="N", help="processes (default: one a CPU core)")
    add("--ray", action="store_true", help="count on a Ray cluster instead")
    add("--address", help="a Ray cluster; without it RAY_ADDRESS, or an embedded Ray")


def run(args: argparse.Namespace) -> int:
    from dinoidd.evaluation.session import Session
    from dinoidd.evaluation.text import as_text
    from dinoidd.log import start_logging

    start_logging()
    predictions, table = _predictions(args)
    session = Session(
        config=_config(args, table),
        predictions=predictions,
        runner=_runner(args),
        against=args.against,
        json=args.json,
        report=args.report,
    )
    result = session.run()
    print(as_text(result))
    for place in filter(None, (args.json, args.report)):
        print(f"written: {place}", file=sys.stderr)
    frames = result["frames"]
    missing = len(frames["without_prediction"]) + len(frames["without_label"])
    return INCOMPLETE if result["problems"] or (missing and not args.allow_missing) else 0


def _predictions(args: argparse.Namespace) -> "tuple[Predictions, ClassTable]":
    """The masks to evaluate, and the class table to go by."""
    from dinoidd.classes import load_class_table
    from dinoidd.evaluation.opening import open_model, open_predictions

    options = storage_options(args)
    table = load_class_table(args.classes) if args.classes else None
    windows = windows_of(args)
    if args.checkpoint is None:
        if windows is not None:
            raise ConfigError("--window and --tta go with --checkpoint: masks are made already")
        if args.base is not None:
            raise ConfigError(
                f"--base {args.base} goes with the --checkpoint that was trained on it"
            )
        return open_predictions(args.predictions, table, options)
    images = args.images or (args.data and _folders(args)[0])
    if not images:
        raise ConfigError("--checkpoint needs images: give --data ROOT, or --images DIR")
    return open_model(
        *(args.checkpoint, images, table, options),
        base=args.base,
        device=args.device,
        dtype=args.dtype,
        windows=windows,
    )


def _config(args: argparse.Namespace, table: "ClassTable") -> "EvaluationConfig":
    from dinoidd.evaluation.config import EvaluationConfig, default_resolution

    if args.split is not None and args.data is None:
        raise ConfigError(
            f"--split {args.split} goes with --data: --ground-truth is the folder of one split"
        )
    given = {
        "boundary_ratio": args.boundary_ratio,
        "samples": args.bootstrap_samples,
    }
    return EvaluationConfig(
        ground_truth=args.ground_truth or _folders(args)[1],
        split=args.data and (args.split or SPLIT),
        table=table,
        encoding=args.encoding,
        resolution=args.resolution or default_resolution(table),
        label_suffix=args.label_suffix,
        any_size=args.allow_size_mismatch,
        seed=args.seed,
        options=storage_options(args),
        **{name: value for name, value in given.items() if value is not None},
    )


def _runner(args: argparse.Namespace) -> "Runner":
    if args.ray:
        from dinoidd.evaluation.job import count_on_cluster

        gpu = args.checkpoint is not None and args.device == "cuda"
        return count_on_cluster(args.address, gpu=gpu)
    from dinoidd.evaluation.runner import count_here

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: at least 1 is needed")
    # A model takes the whole machine, or its one GPU, by itself.
    return count_here(1 if args.checkpoint is not None else args.workers)


def _folders(args: argparse.Namespace) -> tuple[str, str]:
    """Where --data has the images and the label images of --split."""
    from dinoidd.data.frames import split_folders

    return split_folders(args.data, args.split or SPLIT, storage_options(args))
