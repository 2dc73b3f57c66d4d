"""`dinoidd compact OUTPUT`: small files of a finished run into large ones."""

import argparse

from dinoidd.cli.options import add_storage_options, storage_options

EPILOG = """\
Rows, counts and run id stay as they are; only how many rows a file holds changes. Readers that respect
_SUCCESS never see a row twice: it is away while files are replaced. The same command finishes a
compaction that was stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument(
        "--file-size",
        metavar="SIZE",
        default="256MB",
        help="of a file on average, none over twice that (%(default)s)",
    )
    add_storage_options(parser)
    parser.add_argument(
        "--address",
        help="a Ray cluster; without it RAY_ADDRESS, or an embedded Ray on this machine",
    )


def run(args: argparse.Namespace) -> int:
    from dinoidd.log import start_logging
    from dinoidd.segment.summary import size_text
    from dinoidd.sizes import parse_size
    from dinoidd.upkeep.compact import compact

    start_logging()
    done = compact(
        args.output,
        file_size=parse_size("--file-size", args.file_size),
        storage=storage_options(args),
        address=args.address,
    )
    average = size_text(done.bytes / done.files)
    if done.files == done.files_before:
        print(f"{args.output}: {done.files:,} files of {average} on average: nothing to do")
    else:
        print(
            f"{args.output}: {done.files_before:,} files are {done.files:,} now, of {average} on "
            "average"
        )
    return 0
