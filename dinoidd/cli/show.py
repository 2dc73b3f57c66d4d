"""`dinoidd show OUTPUT --to FILE.png`: look at a run."""

import argparse
import sys
from pathlib import Path

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.errors import ConfigError, OutputError

EXAMPLES = """\
examples:
  dinoidd show OUTPUT --to sample.png
  dinoidd show OUTPUT --where "fraction.person > 0.02" --grid 3x4 --to people.png
  dinoidd show OUTPUT --where "status = 'error'" --to errors.png
  dinoidd show OUTPUT --where "image_id IN (FROM images SELECT image_id
      ORDER BY confidence LIMIT 12)" --to unsure.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument("--to", metavar="FILE", type=Path, required=True, help="the PNG to write")
    parser.add_argument(
        "--where", metavar="SQL", default="true", help="a condition on `images`' rows"
    )
    parser.add_argument(
        "--grid",
        metavar="CxR",
        default="4x3",
        help="columns and rows at most (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another one picks other images (default: %(default)s)"
    )
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.to.suffix.lower() != ".png":
        raise ConfigError(f"--to {args.to}: the picture is a PNG, name it .png")

    from dinoidd.output.reader import RunReader
    from dinoidd.output.show import Grid, show

    grid = Grid.parse(args.grid)
    reader = RunReader(args.output, storage_options(args))
    picture = show(reader, where=args.where, grid=grid, seed=args.seed)
    if not reader.finished:
        print(reader.progress_note(), file=sys.stderr)
    partial = args.to.with_name(f".{args.to.name}.partial")
    try:
        picture.save(partial, "PNG")
        partial.replace(args.to)
    except OSError as error:
        raise OutputError(f"{args.to} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"{args.to}: {picture.width}x{picture.height} pixels")
    return 0
