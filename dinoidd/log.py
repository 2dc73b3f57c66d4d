"""Log lines of the command line: time, and what a person wants to know."""

import logging
import os
import sys

logger = logging.getLogger("dinoidd")
# Told to each driver when a node dies, beside the sentence that it did: twenty lines of the node's log,
# and a line for each call that is tried again.
_RAY_NOISE = "Raylet is terminated|infinite retries remaining"


def quieten_ray() -> None:
    """Keep what Ray says to itself out of a job's log; all of it, where Ray is not imported yet."""
    # Ray Data's actors make the core print an error of its own at every start (ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _RAY_NOISE)


def start_logging(quiet: bool = False) -> None:
    """Send this package's log lines to stderr, so that stdout holds results alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def duration(seconds: float) -> str:
    """`2d 3h`, `3h 5m`, `6m49s`, `12s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
