"""`dinoidd retry OUTPUT`: the error rows of a finished run, tried again."""

import argparse

from dinoidd.cli.options import (
    add_accelerator_option,
    add_base_option,
    add_storage_options,
    storage_options,
)
from dinoidd.errors import ConfigError

# Options that stand in place of the run's own, by their names in SegmentConfig.
_OPTIONS = {
    "max_pixels": "larger images stay error rows",
    "max_bytes": "larger files stay error rows",
    "image_timeout": "seconds that one image may take",
    "outage_patience": "seconds to wait for a store that is out",
    "batch_size": "images a forward",
    "actors": "processes with a model (one a GPU, or one)",
    "threads": "downloads at a time in one task",
    "rows_per_chunk": "images a unit of work (up to 64)",
}
NOTHING_MENDED = 1
_SECONDS = ("image_timeout", "outage_patience")
EXAMPLES = """\
Rows that fail again stay error rows, with the new reason. Changed limits are told in run.json
(`retries`). The same command goes on where a retry was stopped.

exit status: 0; 1 where all of them failed again; 2 for an error

examples:
  dinoidd retry OUTPUT
  dinoidd retry OUTPUT --kind unreachable,forbidden
  dinoidd retry OUTPUT --kind too_large --max-pixels 400000000 --batch-size 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument(
        "--kind",
        metavar="KIND,KIND",
        help="only error rows of these kinds, as in the column error_kind (all)",
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="the run's model, where that has moved"
    )
    add_base_option(parser)
    instead = parser.add_argument_group("in place of the run's own settings")
    for name, text in _OPTIONS.items():
        kind, unit = (float, "SECONDS") if name in _SECONDS else (int, "N")
        instead.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=unit, help=text)
    instead.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add_accelerator_option(instead)
    add_storage_options(parser)
    parser.add_argument(
        "--restart", action="store_true", help="throw a retry away that is not finished"
    )
    parser.add_argument(
        "--address",
        help="a Ray cluster; without it RAY_ADDRESS, or an embedded Ray on this machine",
    )


def run(args: argparse.Namespace) -> int:
    from dinoidd.log import start_logging
    from dinoidd.upkeep.retry import RetryRequest, retry

    start_logging()
    names = (*_OPTIONS, "checkpoint", "base")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    done = retry(
        RetryRequest(
            output=args.output,
            kinds=_kinds(args.kind),
            options=given,
            storage=storage_options(args),
            device=args.device,
            address=args.address,
            accelerator_type=args.accelerator_type,
            restart=args.restart,
        )
    )
    if not done.tried:
        print(f"{args.output} has no error rows: nothing to do")
        return 0
    again = ", ".join(f"{kind} {count:,}" for kind, count in sorted(done.errors.items()))
    failed = f"{done.tried - done.mended:,} failed again{f' ({again})' if again else ''}"
    print(f"{done.tried:,} error rows tried again: {done.mended:,} are ok now, {failed}")
    return 0 if done.mended else NOTHING_MENDED


def _kinds(text: str | None) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in (text or "").split(",") if kind.strip())
    if text is not None and not kinds:
        raise ConfigError(f"--kind {text!r} names no kind: write them like missing,unreachable")
    return kinds
