"""A run that has stopped making progress says so, and where: nobody should wait without a word."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dinoidd.log import duration
from dinoidd.segment.flow import InStage

PATIENCE_S = 120.0  # until the first word; until the next, twice as long each time
_RUNNING = {
    "read": "the store is slow or does not answer, or a decoder hangs (--image-timeout ends it)",
    "model": "a batch takes that long, or hangs (--image-timeout ends it)",
    "write": "the store of the output is slow or does not answer",
    "merge": "the store of the output is slow or does not answer, or no node has room for the task",
}
_WAITING = {
    "read": "Ray starts no task for them",
    "model": "no actor is ready: the model is being loaded, or its process finds no place",
    "write": "Ray starts no task for them",
    "merge": "",
}
_NOWHERE = "no stage is known to have work: Ray hands none on"
_ALL = "all"  # stands for the whole run beside its stages


@dataclass
class _Seen:
    """A stage as it was when it last moved."""

    finished: int
    since: float
    told_at: float


class Standstill:
    """Notices which stage does not move any more.

    Args:
        room: the cluster's resources and what is free of them, as text.
        clock: seconds.
    """

    def __init__(
        self, room: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._room, self._clock = room, clock
        self._seen: dict[str, _Seen] = {}

    def look(self, stages: Mapping[str, InStage], done: int | None = None) -> str | None:
        """A sentence where it is time for one.

        Args:
            stages: in the order of the work. One that is stuck stops those before it, so of several
                the last is named.
            done: images that have come out at the end; None: none is left to come. Where they stand
                still, it is said also if no stage has work, or nobody knows which.
        """
        now = self._clock()
        stuck = [name for name, stage in stages.items() if self._is_stuck(name, stage, now)]
        moved = sum(stage.finished for stage in stages.values()) + (done or 0)
        still = self._stands_still(_ALL, moved, done is None, now)
        if not stuck and not still:
            return None
        seen = self._seen[stuck[-1] if stuck else _ALL]
        if now < seen.told_at:
            return None
        seconds = now - seen.since
        seen.told_at = now + seconds
        if stuck:
            return self._sentence(stuck[-1], stages[stuck[-1]], seconds)
        return self._no_stage(stages, seconds)

    def _is_stuck(self, name: str, stage: InStage, now: float) -> bool:
        idle = not stage.running and not stage.waiting
        return self._stands_still(name, stage.finished, idle, now)

    def _stands_still(self, name: str, finished: int, idle: bool, now: float) -> bool:
        seen = self._seen.get(name)
        if seen is None or idle or finished != seen.finished:
            self._seen[name] = _Seen(finished, now, now + PATIENCE_S)
            return False
        return now - seen.since >= PATIENCE_S

    def _sentence(self, name: str, stage: InStage, seconds: float) -> str:
        why = _RUNNING[name] if stage.running else f"{_WAITING[name]}; {self._room()}"
        return (
            f"nothing has got through the stage `{name}` for {duration(seconds)}: {stage.running} pieces "
            f"of work are in it and {stage.waiting} wait for it: {why}"
        )

    def _no_stage(self, stages: Mapping[str, InStage], seconds: float) -> str:
        """Nothing moves, and no stage has had work for long enough to be named."""
        places = [
            f"{stage.running} in `{name}` and {stage.waiting} before it"
            for name, stage in stages.items()
            if stage.running or stage.waiting
        ]
        where = f"pieces of work are {', '.join(places)}" if places else _NOWHERE
        return f"nothing has been finished for {duration(seconds)}, and {where}; {self._room()}"
