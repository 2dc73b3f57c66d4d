"""`dinoidd verify OUTPUT`: prove that a run is whole."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.output.verify import Report

DIFFERS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit status: 0 where all agrees, 1 with the first differences otherwise"
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument("--all", action="store_true", help="decode every mask")
    masks.add_argument(
        "--sample",
        metavar="N",
        type=int,
        default=200,
        help="decode the masks of N images picked at random (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.sample < 0:
        raise ConfigError(f"--sample {args.sample}: a number of images is 0 or more")

    from tqdm import tqdm

    from dinoidd.output.reader import RunReader
    from dinoidd.output.verify import verify

    reader = RunReader(args.output, storage_options(args))
    report = verify(
        reader,
        sample=None if args.all else args.sample,
        progress=lambda parts: tqdm(parts, unit="file", leave=False, disable=None),
    )
    if reader.half_retried:
        print(
            "note: a `dinoidd retry` is not finished, so its counts are not compared with run.json",
            file=sys.stderr,
        )
    print(_json(report, reader.uri) if args.json else _text(report, reader.uri))
    return DIFFERS if report.findings.total else 0


def _text(report: "Report", uri: str) -> str:
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in report.errors.most_common())
    seen = (
        f"{uri}: {report.images:,} images, {report.rows:,} rows, {report.ok:,} ok, "
        f"{report.errors.total():,} with errors{f' ({kinds})' if kinds else ''}; "
        f"{report.masks:,} masks decoded"
    )
    total = report.findings.total
    if not total:
        return f"{seen}\nverified: every image has exactly one row, and all agrees"
    lines = [f"NOT verified: {total:,} difference{'s'[: total > 1]}"]
    return "\n".join([seen, *lines, *(f"- {s}" for s in report.findings.sentences())])


def _json(report: "Report", uri: str) -> str:
    values = {
        "verified": not report.findings.total,
        "output": uri,
        "images": report.images,
        "rows": report.rows,
        "ok": report.ok,
        "errors": dict(report.errors),
        "masks_decoded": report.masks,
        "differences": report.findings.total,
        "differences_by_kind": report.findings.counts,
        "sentences": report.findings.sentences(),
    }
    return json.dumps(values, indent=2, ensure_ascii=False)
