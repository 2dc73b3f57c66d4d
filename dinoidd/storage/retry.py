"""Trying again what a store could not do just now."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dinoidd.errors import OutageError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 20.0
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long one object is tried."""

    attempts: int
    seconds: float  # for all attempts and the waits between them


ONCE = Patience(attempts=1, seconds=20)  # there is another occasion soon
BRISK = Patience(attempts=3, seconds=60)  # a person waits for it
STEADY = Patience(attempts=8, seconds=180)  # of runs: half a minute of throttling costs no image


def persist(call: Callable[[float], Result], patience: Patience) -> Result:
    """What `call` returns; it is called again while its object is `unreachable`.

    The waits double and are drawn at random from zero up ("full jitter"), so that the many who were
    throttled together do not come back together. Credentials that are refused are read again, once:
    those of a profile or a role may have been renewed since this process began.

    Args:
        call: gets the seconds that are left.

    Raises:
        OutageError: the last one, with how often and how long it was tried.
    """
    started, renewed = time.monotonic(), False
    for attempt in range(1, patience.attempts + 1):
        try:
            return call(max(0.0, started + patience.seconds - time.monotonic()))
        except OutageError as error:
            if error.kind == "credentials":
                if renewed or attempt == patience.attempts:
                    raise
                renewed = True
                continue
            wait = random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)))
            spent = time.monotonic() - started
            if attempt == patience.attempts or spent + wait >= patience.seconds:
                times = "once" if attempt == 1 else f"{attempt} times"
                tried = f"{error} (tried {times} in {spent:.0f} s)"
                raise OutageError(error.kind, tried) from error
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")
