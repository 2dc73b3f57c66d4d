"""`dinoidd data labels`: polygon files to label images."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from dinoidd.cli.progress import Progress

if TYPE_CHECKING:
    from dinoidd.data.labels import Drawn, LabelsInfo

DESCRIPTION = (
    "Draw the label image of every polygon file below ROOT/gtFine, byte for byte as the official tool "
    "does. Images that it drew before are drawn again only where their polygons have changed, which "
    "the hidden file .dinoidd_labels beside them tells. Images that another tool made stay, and are "
    "told where they differ from the polygons; so are images whose line in that file was lost (it is "
    "written after the image) and whose polygons have changed since: --overwrite draws them. A broken "
    "polygon file is told too, and a label image that it had stays. Neither stops the rest, and the exit "
    "status is then 1."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action's options."""
    add = parser.add_argument
    add("--root", required=True, metavar="ROOT", help="the data set's folder; it holds gtFine/")
    add(
        "--encoding",
        default="level3Id",
        metavar="NAME",
        help="level3Id, level2Id, level1Id, level4Id, id, csTrainId or color (default: %(default)s)",
    )
    add("--out", metavar="DIR", help="write to DIR/gtFine/... (default: beside the polygon files)")
    add("--workers", type=int, metavar="N", help="processes (default: one a CPU core)")
    add(
        "--overwrite",
        action="store_true",
        help="draw everything anew, also in place of label images that another tool made",
    )
    add("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Draw, tell of what failed or is foreign, and print a summary; 1 if anything is."""
    from dinoidd.data.labels import draw_label_images
    from dinoidd.data.polygon_files import find_polygon_files

    total = sum(1 for _ in find_polygon_files(args.root))
    with Progress(total, "drew", "label images") as progress:
        info = draw_label_images(
            args.root,
            encoding=args.encoding,
            out=args.out,
            workers=args.workers,
            overwrite=args.overwrite,
            progress=Count(progress),
        )
    print(json.dumps(asdict(info)) if args.json else summary(info))
    if info.failed:
        files = "file" if info.failed == 1 else "files"
        print(f"{info.failed:,} polygon {files} could not be drawn", file=sys.stderr)
    if info.foreign:
        print(foreign_sentence(info), file=sys.stderr)
    return 1 if info.failed or info.foreign else 0


class Count:
    """Counts the files for the progress, and tells at once of those that failed."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done = progress, 0

    def __call__(self, result: "Drawn") -> None:
        self.done += 1
        self.progress(self.done)
        if result.error:
            self.progress.say(f"{result.source}: {result.error}")


def foreign_sentence(info: "LabelsInfo") -> str:
    """What the images that are not ours are, and what to do."""
    more = ", ..." if info.foreign > len(info.foreign_examples) else ""
    one = info.foreign == 1
    were, they, them = (
        ("image was", "it differs", "it") if one else ("images were", "they differ", "them")
    )
    return (
        f"{info.foreign:,} label {were} left alone: {they} from what the polygons give, and another "
        f"tool made or changed {them}: {', '.join(info.foreign_examples)}{more}; --overwrite draws "
        f"{them} anew, --out writes to another folder"
    )


def summary(info: "LabelsInfo") -> str:
    """The summary for a person."""
    speed = (
        f" ({60 * info.drawn / info.seconds:,.0f} a minute)" if info.drawn and info.seconds else ""
    )
    lines = {
        "labels": f"{info.output}/gtFine, {info.encoding}",
        "drawn": f"{info.drawn:,}{speed}",
        "there": f"{info.there:,}",
        "foreign": f"{info.foreign:,}",
        "failed": f"{info.failed:,}",
        "seconds": f"{info.seconds:.1f}",
    }
    return "\n".join(f"{name:<10}{value}" for name, value in lines.items())
