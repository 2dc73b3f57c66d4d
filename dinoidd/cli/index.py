"""`dinoidd index`: list the images of a folder or bucket into a manifest."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from dinoidd.cli.options import add_input_options, add_storage_options, storage_options
from dinoidd.errors import OutputError

if TYPE_CHECKING:
    from dinoidd.data.manifest import ManifestInfo
    from dinoidd.storage import Store

SUMMARY = "list the images of a folder or bucket into a manifest"
SECONDS_BETWEEN_LINES = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_input_options(parser)
    parser.add_argument(
        "--output", required=True, metavar="URI", help="the run's folder: OUTPUT/manifest/"
    )
    parser.add_argument(
        "--restart", action="store_true", help="replace a manifest that is there already"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the manifest and print a summary."""
    from dinoidd.data.index import Origin, index_origin
    from dinoidd.data.manifest import FOLDER
    from dinoidd.data.selection import Selection
    from dinoidd.segment.lock import exclusive
    from dinoidd.storage import Store

    options = storage_options(args)
    output = Store.open(args.output, options)
    selection = Selection(where=args.where, sample=args.sample, seed=args.sample_seed)
    selection.check()
    refuse_to_replace(output, restart=args.restart)
    output.check_writable()
    start = time.monotonic()
    origin = Origin(inputs=tuple(args.input), selection=selection)
    with exclusive(output, "index"):
        refuse_to_replace(output, restart=args.restart)  # it may have been made meanwhile
        info = index_origin(origin, output, options, progress=Lines())
    seconds = time.monotonic() - start
    where = output.child(FOLDER).uri
    if args.json:
        print(json.dumps({"manifest": where, **asdict(info), "seconds": round(seconds, 3)}))
    else:
        print(summary(info, where, seconds))
    return 0


def refuse_to_replace(output: "Store", *, restart: bool) -> None:
    """Raise OutputError where a new manifest would throw away a manifest, or orphan results."""
    from dinoidd.data.manifest import FOLDER, read_manifest_info

    if restart:
        if output.child("images").names():
            raise OutputError(
                f"{output.uri} holds results of its manifest: choose another --output, or throw "
                "them away with `dinoidd segment --restart`"
            )
        return
    info = read_manifest_info(output.child(FOLDER))
    if info is not None:
        raise OutputError(
            f"{output.uri} has a manifest of {info.rows:,} images of {info.input} already: give "
            "--restart to list again, or another --output"
        )


class Lines:
    """Progress as lines on stderr, one every few seconds."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()

    def __call__(self, rows: int) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            rate = rows / (now - self.start)
            print(f"listed {rows:,} images ({rate:,.0f}/s)", file=sys.stderr, flush=True)


def summary(info: "ManifestInfo", where: str, seconds: float) -> str:
    """The summary for a person."""
    left_out = ", ".join(f"{number:,} {what}" for what, number in info.skipped.items())
    lines = {
        "manifest": f"{where} ({info.files:,} files)",
        "input": " ".join([info.input, *info.more_inputs]),
        "images": f"{info.rows:,}" + ("" if info.listed is None else f" of {info.listed:,}"),
        "bytes": f"{info.bytes:,}",
        "left out": left_out or "nothing",
        "seconds": f"{seconds:.1f}",
    }
    return "\n".join(f"{name:<10}{value}" for name, value in lines.items())
