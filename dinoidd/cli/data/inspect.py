"""`dinoidd data inspect`: what a data set holds, and what is odd about it."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.cli.progress import Progress
from dinoidd.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from dinoidd.data.inspect import Inspection, Mapper

DESCRIPTION = (
    "Count the frames and labels of a data set split by split, their sizes, raw values and classes, "
    "tell which encoding the label images are in, and warn of what is odd. Exit status: 0, with warnings "
    "too; 1 where --strict is given and there are warnings; 2 for an error."
)
STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action's options."""
    add = parser.add_argument
    add("root", metavar="ROOT", help="the data set's folder, here or in a bucket")
    add("--classes", default="idd", metavar="TABLE", help="class table (default: %(default)s)")
    add(
        "--encoding",
        default="auto",
        metavar="NAME",
        help="of IDD's label images: official, road255, or auto: what fits (default: %(default)s)",
    )
    add("--label-suffix", metavar="KIND", help="labels are *_gtFine_KIND.png (the class table's)")
    add("--json", metavar="FILE", help="write all counts to FILE; -: print them instead of text")
    add("--report", metavar="DIR", help="write the text, the counts and two pictures to DIR")
    add("--strict", action="store_true", help="exit status 1 if there are warnings")
    add("--workers", type=int, metavar="N", help="processes (default: one a CPU core)")
    add(
        "--ray", action="store_true", help="count on the Ray cluster of RAY_ADDRESS, or a local one"
    )
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    """Inspect, and print what was found; 1 if --strict and there are warnings."""
    from dinoidd.classes import load_class_table
    from dinoidd.data.inspect import inspect_dataset
    from dinoidd.data.inspect_warnings import find_warnings
    from dinoidd.errors import ConfigError
    from dinoidd.inspection.text import describe

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: at least 1 is needed")
    with Progress(0, "inspected", "frames") as progress:
        found = inspect_dataset(
            args.root,
            table=load_class_table(args.classes),
            encoding=args.encoding,
            label_suffix=args.label_suffix,
            options=storage_options(args),
            mapper=_mapper(args),
            workers=args.workers,
            progress=progress.of,
        )
    warnings = find_warnings(found)
    text = describe(found, warnings)
    counts = json.dumps(found.to_dict() | {"warnings": warnings}, indent=1)
    _write(args, found, text, counts)
    print(counts if args.json == STDOUT else text)
    return 1 if args.strict and warnings else 0


def _mapper(args: argparse.Namespace) -> "Mapper | None":
    """Ray where it is asked for, or where a cluster is set; None: processes of this machine."""
    if not args.ray and not (os.environ.get("RAY_ADDRESS") and args.workers is None):
        return None
    from dinoidd.inspection.job import map_on_ray

    return map_on_ray


def _write(args: argparse.Namespace, found: "Inspection", text: str, counts: str) -> None:
    from pathlib import Path

    try:
        if args.json and args.json != STDOUT:
            Path(args.json).write_text(counts + "\n", encoding="utf-8")
        if args.report:
            Path(args.report).mkdir(parents=True, exist_ok=True)
            _write_report(args, found, Path(args.report), text, counts)
    except OSError as error:
        raise OutputError(f"the report cannot be written: {error}") from error


def _write_report(
    args: argparse.Namespace, found: "Inspection", folder: "Path", text: str, counts: str
) -> None:
    from dinoidd.inspection.bar_chart import draw_bar_chart
    from dinoidd.inspection.contact_sheet import draw_contact_sheet

    (folder / "summary.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "counts.json").write_text(counts + "\n", encoding="utf-8")
    written = ["summary.txt", "counts.json"]
    if found.total.labels_read:
        title = f"Classes of {found.total.labels_read:,} label images"
        chart = draw_bar_chart(
            title, f"{found.root}, {found.read_as}", found.classes(), found.table
        )
        chart.save(folder / "classes.png")
        written.append("classes.png")
    sheet = draw_contact_sheet(found, storage_options(args))
    if sheet is not None:
        sheet.save(folder / "contact_sheet.png")
        written.append("contact_sheet.png")
    print(f"{folder}: {', '.join(written)}", file=sys.stderr)
