"""A thread beside a session's work that looks, every few seconds, where its pieces are."""

import threading
from collections.abc import Callable
from types import TracebackType

from dinoidd.log import logger
from dinoidd.segment.flow import InStage

POLL_S = 5.0

Stages = dict[str, InStage]


class Watch:
    """Looks as long as the block lasts, and once more at its end.

    Args:
        look: where the pieces are.
        tell: gets what `look` found.
    """

    def __init__(self, look: Callable[[], Stages], tell: Callable[[Stages], None]) -> None:
        self._look, self._tell = look, tell
        self._ended = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self._tell(self._look())
            except Exception as error:  # who watches must not end the work
                if not self._failed:
                    logger.warning(f"the run goes on, but could not be looked at: {error!r}")
                self._failed = True

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(POLL_S)
        self._tell({})
