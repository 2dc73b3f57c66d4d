"""What a run does while a store is out: it waits, says so, and gives up when that lasts too long.

An object that cannot be read while its store answers is that object's error row (see ObjectReader; of
web servers `check_source` tells).
Everything else that a store refuses to all alike comes here: no answer, or unknown credentials. The
pipeline is taken down and built again when the store is back, so that nothing holds a GPU or a
time-out meanwhile; what is done is in its files.
"""

import os
import random
import time
from collections.abc import Callable

from dinoidd.errors import OutageError, OutputError
from dinoidd.log import duration, logger
from dinoidd.storage import Store

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0


class Outage:
    """Counts how long a run has been without a store.

    Args:
        patience: seconds without any progress, after which it gives up.
        check: raises OutageError as long as the store is out.
    """

    def __init__(self, patience: float, check: Callable[[], None]) -> None:
        self._patience = patience
        self._check = check
        self._since: float | None = None

    def over(self) -> None:
        """Something was done: the next outage is another one."""
        self._since = None

    def wait(self, error: OutageError) -> None:
        """Return when the store answers again.

        Raises:
            OutageError: it did not, for as long as the patience lasts, or cannot, because nobody can
                renew credentials that came in environment variables.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        logger.warning(
            f"{error}. The run waits up to {duration(self._patience)} (--outage-patience); "
            "what is done is kept"
        )
        pause = FIRST_PAUSE_S
        while (left := self._since + self._patience - time.monotonic()) > 0:
            time.sleep(min(left, pause * random.uniform(0.5, 1)))
            pause = min(LONGEST_PAUSE_S, 2 * pause)
            away = duration(time.monotonic() - self._since)
            try:
                self._check()
            except OutageError as still:
                error = still
                if still.kind == "credentials" and _fixed_credentials():
                    break
                logger.warning(f"still out after {away}: {still}")
            else:
                logger.warning(f"the store answers again after {away}: going on")
                return
        raise self._given_up(error)

    def _given_up(self, error: OutageError) -> OutageError:
        away = duration(time.monotonic() - (self._since or 0.0))
        when = "With valid credentials" if error.kind == "credentials" else "When it is back"
        return OutageError(
            error.kind,
            f"{error}. The run waited {away} and ends; what is done is kept. {when}, the same command "
            "goes on from there",
        )


def _fixed_credentials() -> bool:
    """Whether they came with this process; those of a profile or a role may be renewed outside."""
    return "AWS_ACCESS_KEY_ID" in os.environ


def check_output(output: Store) -> None:
    """Write and read as a run does.

    Raises:
        OutageError: the store is out.
        OutputError: it answers, and refuses.
    """
    try:
        output.check_writable()
    except OutputError as error:
        if isinstance(error.__cause__, OutageError):
            raise error.__cause__ from error
        raise
    output.exists("run.json")
