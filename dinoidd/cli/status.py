"""`dinoidd status OUTPUT`: how far a run is, told from its files by anyone who can read them."""

import argparse
import json
import time

from dinoidd.cli.options import add_storage_options, storage_options
from dinoidd.errors import ConfigError

UNFINISHED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "exit status: 0 where the run is finished or somebody works on it, 1 where it was stopped"
    )
    parser.add_argument("output", metavar="OUTPUT", help="the run's folder or s3:// prefix")
    parser.add_argument("--json", action="store_true", help="print one JSON object (a line a look)")
    parser.add_argument(
        "--watch", action="store_true", help="look again and again, until nobody works on it"
    )
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="SECONDS", help="between looks (%(default)s)"
    )
    add_storage_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.every <= 0:
        raise ConfigError(f"--every {args.every:g}: a number of seconds is above 0")

    from dinoidd.status.look import FINISHED, Watcher
    from dinoidd.status.text import block, line, to_dict
    from dinoidd.storage import Store

    watcher = Watcher(Store.open(args.output, storage_options(args)))
    look = watcher.look()
    while args.watch and look.session is not None:
        print(json.dumps(to_dict(look)) if args.json else line(look), flush=True)
        time.sleep(args.every)
        look = watcher.look()
    print(json.dumps(to_dict(look), indent=None if args.watch else 2) if args.json else block(look))
    ended = look.session is not None or look.state.startswith(FINISHED)
    return 0 if ended else UNFINISHED
