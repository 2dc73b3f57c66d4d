"""`dinoidd data generate`: draw street scenes with their labels."""

import argparse
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from dinoidd.cli.progress import Progress
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.data.generate import DatasetInfo

DESCRIPTION = (
    "Draw street scenes with IDD's level 3 labels: leftImg8bit/ and gtFine/. The same seed gives the "
    "same files; run it again to finish an interrupted data set."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action's options."""
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="a new or empty folder")
    add("--images", type=int, default=60, metavar="N", help="scenes (default: %(default)s)")
    add("--image-size", default="480x270", metavar="WxH", help="pixels (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="another one draws other streets")
    add(
        "--splits",
        default="train=0.7,val=0.3",
        metavar="NAME=SHARE,...",
        help="which folders get which share (default: %(default)s)",
    )
    add("--format", default="jpg", metavar="jpg|png", help="of the images (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="processes (default: one a CPU core)")
    add("--restart", action="store_true", help="throw away what an earlier run wrote to DIR")
    add("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the data set and print a summary."""
    from dinoidd.data.generate import generate_dataset

    size, splits = parse_size(args.image_size), parse_splits(args.splits)
    with Progress(args.images, "drew", "scenes") as progress:
        info = generate_dataset(
            args.output,
            images=args.images,
            size=size,
            seed=args.seed,
            splits=splits,
            format=args.format,
            workers=args.workers,
            restart=args.restart,
            progress=progress,
        )
    print(json.dumps(asdict(info)) if args.json else summary(info))
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `480x270`. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", text.strip(), re.ASCII)
    if match is None:
        raise ConfigError(f"--image-size {text}: give width and height in pixels, such as 480x270")
    return int(match[1]), int(match[2])


def parse_splits(text: str) -> list[tuple[str, float]]:
    """Names and shares of `train=0.7,val=0.3`. Raises ConfigError."""
    splits = []
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            splits.append((name.strip(), float(share)))
        except ValueError:
            raise ConfigError(
                f"--splits {text}: '{part}' is not NAME=SHARE, such as train=0.7,val=0.3"
            ) from None
    return splits


def summary(info: "DatasetInfo") -> str:
    """The summary for a person."""
    speed = f" ({info.drawn / info.seconds:.0f}/s)" if info.drawn and info.seconds else ""
    lines = {
        "data set": info.output,
        "images": f"{info.images:,} ({info.resumed:,} were there already)",
        "labels": f"{info.images:,} ({info.labels_resumed:,} were there already)",
        "splits": ", ".join(f"{name} {count:,}" for name, count in info.splits.items()),
        "seconds": f"{info.seconds:.1f}{speed}",
    }
    return "\n".join(f"{name:<10}{value}" for name, value in lines.items())
