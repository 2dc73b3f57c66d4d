"""`dinoidd export OUTPUT --format FORMAT --to DIR`: masks as other tools want them."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.cli.progress import Progress
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.exports import Exported

FORMATS = ("png", "coco", "cityscapes", "hugging-face", "fiftyone")
EXAMPLES = """\
formats:
  png           label images, values = class ids, under IDD's names where the images have IDD's
  coco          panoptic JSON and PNGs, and a JSON with run-length encoded masks
  cityscapes    label images with Cityscapes' ids, for the classes that it knows
  hugging-face  Parquet with images beside masks, for datasets.load_dataset(DIR)
  fiftyone      images and labels, for FiftyOne's ImageSegmentationDirectory

DIR/index.csv tells which image became which file. The same command again completes DIR. Exit status: 0,
or 1 where a mask is damaged or an image that belongs to the format could not be read.

examples:
  dinoidd export OUTPUT --format png --to labels
  dinoidd export OUTPUT --format coco --to coco --where "fraction.person > 0.02"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument("--format", required=True, choices=FORMATS, help="see below")
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="a new or empty folder, here or s3://"
    )
    parser.add_argument(
        "--where", metavar="SQL", default="true", help="a condition on `images`' rows"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads (default: two a CPU core)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    """Export; 1 if masks are damaged, or images that belong to the format could not be read."""
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: give 1 or more")

    from dinoidd.exports import export
    from dinoidd.output.reader import RunReader

    reader = RunReader(args.output, storage_options(args))
    if not reader.finished:
        print(reader.progress_note(), file=sys.stderr)
    with Progress(0, "exported", "masks") as progress:
        result = export(
            reader,
            args.to,
            format=args.format,
            where=args.where,
            workers=args.workers,
            started=lambda total: lambda done: progress.of(done, total),
        )
    print(json.dumps(asdict(result)) if args.json else summary(result))
    return 0 if result.complete else 1


def summary(result: "Exported") -> str:
    """The summary for a person."""
    lines = {"exported": f"{result.exported:,} masks to {result.to} ({result.format})"}
    if result.not_matching:
        lines["skipped"] = f"{result.not_matching:,} rows that --where does not match"
    for name, counts in (
        ("errors", result.errors),
        ("damaged", result.damaged_masks),
        ("left out", result.left_out),
        ("no image", result.without_image),
    ):
        if counts:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.items())
            lines[name] = f"{sum(counts.values()):,} rows: {kinds}"
    notes = "".join(f"\nnote: {note}" for note in result.notes)
    return "\n".join(f"{name:<10}{value}" for name, value in lines.items()) + notes
