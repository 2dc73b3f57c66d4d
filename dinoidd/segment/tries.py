"""How often work was begun and never ended: what finds the image that ends whoever touches it.

Ray runs work again when its process died, for ever and without saying so. A stage therefore tells a
`Tries` that it begins a chunk. Once that has died, the chunk's images go one at a time, each told
before it is touched, and one that ended its process three times by itself is not touched again. What
a lost node or a killed process had in hand is done again, and costs no image.
"""

import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dinoidd.errors import ClusterError
from dinoidd.segment.hang import ends_within

ALONE = 3  # deaths with an image by itself, after which it is given up
FRUITLESS = 5  # deaths in a row with one image at a time, but none in hand
LOADS = 5  # deaths in a row while a model was loaded


class Counting(Protocol):
    """What a stage tells of its work; `stage` is the participle of what it does, like "decoded"."""

    token: str  # of a run's own, for names of files

    def begin(self, stage: str, chunk: int, host: str, hung: bool) -> int:
        """A chunk is begun.

        Args:
            hung: on this host is a mark that the process before this one was ended by its time limit.

        Returns:
            0: at full speed. n: its process died, so one image at a time, and n - 1 such tries in a
            row have died without an image in hand.
        """

    def touch(self, stage: str, chunk: int, image: int | None) -> dict[str, str]:
        """The one before has ended and this one is begun by itself (None: none is). Not empty: the
        `error_kind` and `error` of one that must not be touched again.
        """

    def end(self, stage: str, chunk: int) -> None:
        """The chunk is done, or failed without the death of a process."""

    def abandon(self, stage: str, chunk: int, error: Exception) -> None:
        """End this process, which can do nothing more after that error; in-process, raise it."""

    def load(self) -> int:
        """A model is being loaded: how many times in a row without an end, this one included."""

    def loaded(self) -> None:
        """The model is there, or could not be loaded without the death of a process."""


@dataclass
class _Begun:
    """A chunk that has not ended."""

    host: str = ""
    deaths: int = 0
    fruitless: int = 0
    image: int | None = None  # begun by itself
    since: float = 0.0
    late: dict[int, list[bool]] = field(default_factory=dict)  # whether each death was a time-out
    reason: str = ""


class Tries:
    """The counts themselves, of chunks in work alone; for one process, or in an actor for all.

    Args:
        image_timeout: seconds after which a stage ends its process; None: never.
    """

    def __init__(self, image_timeout: float | None = None) -> None:
        self.token = uuid.uuid4().hex
        self._limit = image_timeout
        self._begun: dict[tuple[str, int], _Begun] = {}
        self._loads: dict[str, int] = {}

    def begin(self, stage: str, chunk: int, host: str, hung: bool) -> int:
        begun = self._begun.get((stage, chunk))
        if begun is None:
            self._begun[stage, chunk] = _Begun(host=host)
            return 0
        if begun.image is not None:
            late = hung or (host != begun.host and self._is_late(begun.since))
            begun.late.setdefault(begun.image, []).append(late)
            begun.image, begun.fruitless = None, 0
        elif begun.deaths:
            begun.fruitless += 1
        begun.deaths += 1
        begun.host = host
        return 1 + begun.fruitless

    def _is_late(self, since: float) -> bool:
        """All that is known of a death on another host is how long it took until the work came back."""
        return self._limit is not None and time.monotonic() - since >= self._limit

    def touch(self, stage: str, chunk: int, image: int | None) -> dict[str, str]:
        begun = self._begun.setdefault((stage, chunk), _Begun(deaths=1))  # where counts were lost
        begun.image, begun.since = None, time.monotonic()
        if image is None or len(begun.late.get(image, ())) < ALONE:
            begun.image = image
            return {}
        if all(begun.late[image]):
            what = (
                f"it was not {stage} within {self._limit:g} s, in {ALONE} tries by itself: raise "
                "--image-timeout if it only takes long"
            )
            return {"error_kind": "timeout", "error": what}
        why = begun.reason or "for want of memory, or of a fault in native code"
        what = f"the process ended each of {ALONE} times that it was {stage} by itself: {why}"
        return {"error_kind": "crashed", "error": what}

    def end(self, stage: str, chunk: int) -> None:
        self._begun.pop((stage, chunk), None)

    def blame(self, stage: str, chunk: int, reason: str) -> None:
        """What the process that has this chunk is about to end of."""
        self._begun.setdefault((stage, chunk), _Begun()).reason = reason

    def abandon(self, stage: str, chunk: int, error: Exception) -> None:
        raise error

    def load(self, who: str = "") -> int:
        self._loads[who] = self._loads.get(who, 0) + 1
        return self._loads[who]

    def loaded(self, who: str = "") -> None:
        self._loads.pop(who, None)


@dataclass(frozen=True)
class Attempt:
    """One try of a chunk."""

    tries: Counting
    stage: str
    chunk: int
    alone: bool = False  # one image at a time

    def touch(self, image: int | None) -> dict[str, str]:
        """To be called before each image; not empty: its error. Costs nothing at full speed."""
        return self.tries.touch(self.stage, self.chunk, image) if self.alone else {}

    def ends_within(self, seconds: float | None) -> AbstractContextManager[None]:
        """End this process if the body takes longer; of an image by itself that leaves a mark."""
        return ends_within(seconds, self.mark if self.alone else None)

    @property
    def mark(self) -> Path:
        name = f"dinoidd-{self.tries.token}-{self.stage}-{self.chunk}"
        return Path(tempfile.gettempdir()) / name

    def abandon(self, error: Exception) -> None:
        self.tries.abandon(self.stage, self.chunk, error)


@contextmanager
def attempt(tries: Counting, stage: str, chunk: int) -> Iterator[Attempt]:
    """Try a chunk. An exception ends it like success: it was no death.

    Raises:
        ClusterError: processes die of this chunk, and not of one of its images.
    """
    mark = Attempt(tries, stage, chunk).mark
    hung = mark.exists() and mark.stat().st_size > 0
    mark.unlink(missing_ok=True)
    tried = tries.begin(stage, chunk, socket.gethostname(), hung)
    if tried > FRUITLESS:
        tries.end(stage, chunk)
        raise ClusterError(
            f"a process died {FRUITLESS} times in a row with chunk {chunk} to be {stage}, and none of "
            "its images was the cause: its memory is short, most likely. What is done is kept: run the "
            "same command again on nodes with more memory"
        )
    try:
        yield Attempt(tries, stage, chunk, alone=tried > 0)
    except Exception:
        tries.end(stage, chunk)
        raise
    tries.end(stage, chunk)


@contextmanager
def loading(tries: Counting) -> Iterator[None]:
    """Load a model.

    Raises:
        ClusterError: it was begun too often without an end.
    """
    if tries.load() > LOADS:
        raise ClusterError(
            f"loading the model ended its process {LOADS} times in a row, for want of memory most "
            "likely: use nodes with more of it, or a smaller model. What is done is kept: run the same "
            "command again to resume"
        )
    try:
        yield
    except Exception:
        tries.loaded()
        raise
    tries.loaded()
