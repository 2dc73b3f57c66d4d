"""`dinoidd predict IMAGE... --output DIR`: a folder of pictures and statistics for each image."""

import argparse
import sys
from collections import Counter
from contextlib import closing
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
    from pathlib import Path

    from dinoidd.prediction.run import Listing
    from dinoidd.segmenter import Segmenter

EPILOG = """\
For street.jpg it writes DIR/street_segmentation/ with original.png, segmentation_raw.npy (class ids,
uint8), segmentation_colored.png, comparison.png and class_statistics.txt. Images of a folder keep the
folders below it; a second image with the same name gets eight hexadecimal digits behind it. DIR/index.csv
tells which image is in which folder, or why in none. Meant for images to be looked at: `dinoidd segment`
is for buckets.
Exit status: 0, or 1 where an image could not be segmented or an IMAGE was not found.

examples:
  dinoidd predict street.jpg --checkpoint model.safetensors --output pictures
  dinoidd predict frames/ "s3://bucket/day-*/*.jpg" --checkpoint model.safetensors --output pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a file, a folder, a glob, a list, or a URL of these",
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="a local folder")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint", metavar="FILE", help="path or URL of what `convert` or `train` wrote"
    )
    model.add_argument("--preset", metavar="NAME", help="a preset with random weights, for a trial")
    add_base_option(parser)
    parser.add_argument("--classes", default="idd", help="class table of a preset (idd)")
    parser.add_argument("--seed", type=int, default=0, help="of a preset's random weights (0)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add_dtype_option(parser)
    for option, default, text in (
        ("--image-size", None, "pixels of the model's square (the model's own)"),
        ("--batch-size", 8, "images a forward; with --window, windows (8)"),
        ("--max-pixels", 100_000_000, "larger images are refused (100,000,000)"),
    ):
        parser.add_argument(option, type=int, metavar="N", default=default, help=text)
    add_window_options(parser)
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from dinoidd.prediction.run import list_arguments

    if "://" in args.output:
        raise ConfigError(
            f"--output {args.output}: predict writes local folders; `dinoidd segment` writes to buckets"
        )
    args.windows = windows_of(args)  # told before anything is listed
    output = Path(args.output).expanduser()
    listing = list_arguments(args.images, output, storage_options(args))
    errors = _predict(args, listing, output)
    print(_summary(len(listing.images), errors, output))
    if listing.problems:
        print(f"{len(listing.problems):,} of {len(args.images):,} arguments gave no image")
    if args.preset:
        print("the weights are random: the masks show that it runs, and mean nothing")
    return 1 if errors or listing.problems else 0


def _predict(args: argparse.Namespace, listing: "Listing", output: "Path") -> Counter[str]:
    """Write the folders and the index, whoever ends it; the errors by kind."""
    from dinoidd.cli.progress import Progress
    from dinoidd.interruption import terminated_as_interrupted
    from dinoidd.prediction.index import FolderIndex
    from dinoidd.prediction.run import predict_images
    from dinoidd.storage import shown

    index = FolderIndex(output)
    for problem in listing.problems:
        print(problem, file=sys.stderr)
    if listing.left_out:
        print(f"left out {listing.left_out:,} images inside {output}", file=sys.stderr)
    segmenter = _segmenter(args)
    errors: Counter[str] = Counter()
    progress = Progress(len(listing.images), "segmented", "images")
    with terminated_as_interrupted(), closing(index), progress:
        for done, outcome in enumerate(predict_images(segmenter, listing.images, output), 1):
            if outcome.folder is not None:
                index.add(outcome.uri, outcome.folder)
            if outcome.error_kind is not None:
                errors[outcome.error_kind] += 1
                error = f"{outcome.error_kind}: {outcome.error}"
                index.add_error(outcome.uri, error)
                progress.say(f"{shown(outcome.uri)}: {error}")
            progress(done)
    return errors


def _segmenter(args: argparse.Namespace) -> "Segmenter":
    from dinoidd.inference.source import ModelSource
    from dinoidd.segmenter import Segmenter

    source = ModelSource(
        checkpoint=args.checkpoint,
        base=args.base,
        preset=args.preset,
        classes=args.classes,
        dtype=args.dtype,
        seed=args.seed,
        storage=storage_options(args),
    )
    return Segmenter(
        source,
        device=args.device,
        image_size=args.image_size,
        windows=args.windows,
        batch_size=args.batch_size,
        max_pixels=args.max_pixels,
    )


def _summary(images: int, errors: Counter[str], output: object) -> str:
    failed = errors.total()
    text = f"{images - failed:,} of {images:,} images segmented into {output}"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in errors.most_common())
    return f"{text}; {failed:,} could not be ({kinds})" if failed else text
