"""Log lines of the command line: time, and what a person wants to know."""

import logging
import sys

logger = logging.getLogger("dinoidd")


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
