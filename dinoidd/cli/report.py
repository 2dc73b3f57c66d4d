"""`dinoidd report OUTPUT --to FILE.html`: one page about a run."""

import argparse
import sys
from pathlib import Path

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.errors import ConfigError, OutputError

EXAMPLES = """\
The page holds all it needs (no network) and stays below 20 MB: pictures beyond 16 MB are left out,
and the page says so. Figures are of all rows; pictures are of some, read beside their masks.

examples:
  dinoidd report OUTPUT --to report.html
  dinoidd report s3://bucket/masks --to report.html --title "Drive 42, front camera"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument("--to", metavar="FILE", type=Path, required=True, help="the .html to write")
    parser.add_argument("--title", metavar="TEXT", help="the heading (default: the run's name)")
    parser.add_argument(
        "--sample",
        type=int,
        default=200_000,
        metavar="N",
        help="rank the images of the galleries among N, where the run has more; 0: among all "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another one picks other images (default: %(default)s)"
    )
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    if args.to.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--to {args.to}: the report is a web page, name it .html")

    from dinoidd.output.reader import RunReader
    from dinoidd.report import ReportOptions, build_report

    options = ReportOptions(title=args.title, sample=args.sample, seed=args.seed)
    reader = RunReader(args.output, storage_options(args))
    if not reader.finished:
        print(reader.progress_note(), file=sys.stderr)
    page = build_report(reader, options).encode()
    partial = args.to.with_name(f".{args.to.name}.partial")
    try:
        partial.write_bytes(page)
        partial.replace(args.to)
    except OSError as error:
        raise OutputError(f"{args.to} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"{args.to}: {len(page) / 1e6:.1f} MB")
    return 0
