"""`dinoidd diff OUTPUT_A OUTPUT_B`: where two runs over the same images differ."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from dinoidd.diff.comparison import Comparison
    from dinoidd.diff.image import ImageDiff
    from dinoidd.diff.json_file import JsonFile
    from dinoidd.output.reader import RunReader

EPILOG = """\
Images are matched by address; both runs need the same class table. Exit status: 0 when the comparison was
made, whatever it found.

examples:
  dinoidd diff s3://bucket/run-a s3://bucket/run-b --to worst.png
  dinoidd diff before after --json diff.json
"""
_WORST = 20  # images that the JSON names as most different


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("a", metavar="OUTPUT_A", help="a run's folder or s3:// prefix")
    parser.add_argument("b", metavar="OUTPUT_B", help="the other one's")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write all of it, every image too"
    )
    parser.add_argument(
        "--to", metavar="FILE", type=Path, help="a PNG of the images that differ most"
    )
    parser.add_argument(
        "--grid", metavar="CxR", default="1x6", help="images a row, and rows (default: %(default)s)"
    )
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.to is not None and args.to.suffix.lower() != ".png":
        raise ConfigError(f"--to {args.to}: the picture is a PNG, name it .png")

    from dinoidd.diff.report import to_dict, to_text
    from dinoidd.diff.sheet import draw_sheet
    from dinoidd.output.reader import RunReader
    from dinoidd.output.show import Grid

    grid = Grid.parse(args.grid)
    a, b = (RunReader(uri, storage_options(args)) for uri in (args.a, args.b))
    for reader in (a, b):
        if not reader.finished:
            print(reader.progress_note(), file=sys.stderr)
    keep = max(grid.cells, _WORST)
    if args.json is None:
        comparison = _compare(a, b, keep, None)
    else:
        from dinoidd.diff.json_file import JsonFile

        with _whole(args.json) as partial, partial.open("w", encoding="utf-8") as file:
            json_file = JsonFile(file)
            comparison = _compare(a, b, keep, json_file)
            json_file.finish(to_dict(a, b, comparison))
    if args.to is not None and comparison.images:
        with _whole(args.to) as partial:
            draw_sheet(a, b, comparison, grid).save(partial, "PNG")
    print(to_text(a, b, comparison))
    if args.to is not None and not comparison.images:
        print(f"{args.to} was not written: there is nothing to draw", file=sys.stderr)
    return 0


def _compare(
    a: "RunReader", b: "RunReader", keep: int, json_file: "JsonFile | None"
) -> "Comparison":
    """Compare, with progress, and write every image into the JSON file."""
    from dinoidd.cli.progress import Progress
    from dinoidd.diff.comparison import compare
    from dinoidd.diff.matching import match

    done = 0
    with match(a, b) as matching, Progress(matching.both, "compared", "images") as progress:

        def each(image: "ImageDiff") -> None:
            nonlocal done
            done += 1
            progress(done)
            if json_file is not None:
                json_file.add(image)

        return compare(a, b, matching, keep=keep, each=each)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write to that gets its name when the block ends well."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
