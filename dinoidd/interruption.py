"""Long work ends alike, whoever stops it: Ctrl-C, or SIGTERM, which is what `ray job stop` sends."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dinoidd.log import logger

_TOLD = "what is left was told"  # a note on the exception
RESUMABLE = "what is done is kept; run the same command again to resume"


@contextmanager
def terminated_as_interrupted(kept: Callable[[], str] = lambda: RESUMABLE) -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does. To be entered after ray.init(), which has a
    handler of its own; of several around each other the innermost tells.

    Args:
        kept: tells, after either, what is left and how to go on.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # where signals cannot be caught
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if _TOLD not in getattr(error, "__notes__", ()):
            error.add_note(_TOLD)
            logger.info("interrupted: %s", kept())
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
