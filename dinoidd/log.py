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
