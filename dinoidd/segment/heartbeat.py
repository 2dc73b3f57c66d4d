"""One session at a time where locks are not seen by all: each shows by a heartbeat that it lives.

`_sessions/ID.json` is a session's file. Who comes looks at those that are there: one whose process is
known to be dead, or that does not beat for `WATCH_S`, is replaced; any other is left to its work. Two
that come together both claim, wait, and look again: the smaller id stays, and a holder always does.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from dinoidd.errors import DinoiddError, OutputError, StorageError
from dinoidd.log import logger
from dinoidd.segment.holder import Holder
from dinoidd.storage import Store
from dinoidd.storage.retry import ONCE, STEADY, Patience

FOLDER = "_sessions"
BEAT_S = 15.0
WATCH_S = 45.0  # three beats
POLL_S = 3.0
SETTLE_S = 2.0  # longer than a claim needs to appear in a listing
RELEASE_S = 2.0  # `ray job stop` leaves 3 s to end in


class Held(Exception):  # noqa: N818 (it is an answer)
    """Another session works on the output, `args[0]`."""


@dataclass(frozen=True)
class _Seen:
    """Another session's file."""

    text: str
    holder: Holder
    holds: bool
    replaces: list[str]  # ids of sessions that it found dead
    kernel: str | None


@dataclass
class Heartbeat:
    """This process's session on an output; `acquire` first.

    Args:
        kernel: whose lock on a disk of this machine is held too (`linux`); None: there is none.
    """

    output: Store
    me: Holder
    kernel: str | None = None
    replaces: list[str] = field(default_factory=list)
    lost_to: str | None = None
    _beats: int = 0
    _left_behind: str | None = None  # why its file is there after the end

    def __post_init__(self) -> None:
        self._files = self.output.child(FOLDER)
        self._name = f"{self.me.id}.json"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def acquire(self) -> None:
        """Become the one session, and begin to beat.

        Raises:
            Held: another session works on the output.
            StorageError: the store cannot be read or written.
        """
        for other in self._wait_for_the_dead():
            self.replaces.append(other.id)
            self._files.remove(f"{other.id}.json")
        try:
            self._claim()
        except BaseException:
            self._files.remove(self._name)
            raise
        self._thread.start()

    def _claim(self) -> None:
        self._write(holds=False)
        if self.kernel is None:  # a disk of this machine lists a claim at once
            time.sleep(SETTLE_S)
        for other in self._others():
            if other.holds or other.holder.id < self.me.id:
                raise Held(other.holder)
        self._write(holds=True)
        for other in self._others():  # one that was as slow as we are: better none than two
            if other.holds:
                raise Held(other.holder)

    def _wait_for_the_dead(self) -> list[Holder]:
        """The sessions that have ended without a word. Raises Held for one that lives."""
        others = self._others()
        before = {other.holder.id: other.text for other in others}
        until = time.monotonic() + WATCH_S
        told = False
        while living := [other for other in others if not self._is_dead(other)]:
            for other in living:
                if before.get(other.holder.id) != other.text:
                    raise Held(other.holder)
            if time.monotonic() >= until:
                break
            if not told:
                logger.info(
                    f"{self.output.uri} has an open session ({living[0].holder}): watching for up "
                    f"to {WATCH_S:.0f} s whether it lives"
                )
                told = True
            time.sleep(POLL_S)
            others = self._others()
        return [other.holder for other in others]

    def _is_dead(self, other: _Seen) -> bool:
        """Certain to have ended: also where the kernel's lock that it held on this disk is ours now."""
        freed = self.kernel is not None and self.kernel == other.kernel
        return freed or other.holder.is_dead

    def check(self, *, now: bool = True) -> None:
        """Raises OutputError where another session has taken over; `now` looks, else what is known."""
        if now and self.lost_to is None:
            self._look()
        if self.lost_to is not None:
            raise OutputError(
                f"{self.output.uri} was taken over {self.lost_to}: this session had not been heard "
                "of for long. What it did is kept; run the same command again"
            )

    def _look(self) -> None:
        """Notice that this session was replaced. Raises StorageError."""
        if self._name not in self._files.names():
            self.lost_to = "by another session, which removed this one's file"
        for other in self._others():
            if self.me.id in other.replaces:
                self.lost_to = f"by {other.holder}"

    def _live(self) -> None:
        """Beat, then let others in: in one thread, so that no beat comes after the end."""
        while self.lost_to is None and not self._ended.wait(BEAT_S):
            try:
                self._beat()
            except DinoiddError:  # the store is away, also for those who would watch
                logger.debug("no heartbeat", exc_info=True)
        try:
            self._files.remove(self._name)
        except StorageError as error:
            self._left_behind = str(error)

    def _beat(self) -> None:
        """Only once: the next beat is soon, and one that comes minutes late could be another's end."""
        self._look()
        if self.lost_to is None:
            self._write(holds=True, patience=ONCE)

    def release(self) -> None:
        """Stop beating, and let others in. Nobody waits for a store that is away."""
        self._ended.set()
        self._thread.join(RELEASE_S)
        if self._thread.is_alive():
            self._left_behind = f"{self._files.uri_of(self._name)} is not removed yet"
        if self._left_behind is not None:
            logger.warning(f"{self._left_behind}: the next session watches for {WATCH_S:.0f} s")

    def _write(self, *, holds: bool, patience: Patience = STEADY) -> None:
        self._beats += 1
        state = {"holds": holds, "beats": self._beats, "replaces": self.replaces}
        text = json.dumps(self.me.to_dict() | state | {"kernel": self.kernel})
        self._files.write_bytes(self._name, text.encode(), patience)

    def _others(self) -> list[_Seen]:
        names = [n for n in self._files.names() if n.endswith(".json") and n != self._name]
        return [seen for seen in map(self._read, names) if seen is not None]

    def _read(self, name: str) -> _Seen | None:
        """None where it has ended meanwhile."""
        try:
            text = self._files.read_bytes(name).decode()
            values: dict[str, Any] = json.loads(text)
            holder = Holder.from_dict(values)
            return _Seen(text, holder, values["holds"], values["replaces"], values.get("kernel"))
        except StorageError as error:
            if error.kind == "missing":
                return None
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(
                f"{self._files.uri_of(name)} is no session of dinoidd: remove it"
            ) from error
