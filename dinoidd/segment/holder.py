"""Who works on an output: a process, told apart from all others, and whether it still lives."""

import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

_START_TIME = 19  # of /proc/PID/stat behind the name: clock ticks from the machine's start


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A session of work on an output, as it is told to those who come while it lasts."""

    id: str
    what: str  # the command, like `segment`
    host: str
    pid: int
    since: str  # UTC
    machine: str | None  # see `_machine`
    start_time: str | None  # a process number is used again, but not with the same start

    @classmethod
    def me(cls, what: str) -> "Holder":
        return cls(
            id=uuid.uuid4().hex,
            what=what,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            machine=_machine(),
            start_time=_start_time(os.getpid()),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Holder":
        """Raises KeyError, TypeError."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"`dinoidd {self.what}` on {self.host}, process {self.pid}, since {self.since}"

    @property
    def is_dead(self) -> bool:
        """Whether it is certain to have ended: it ran here, and its process is gone."""
        here = _machine()
        return (
            here is not None and here == self.machine and _start_time(self.pid) != self.start_time
        )


@cache
def _machine() -> str | None:
    """One start of one machine, and in it the container whose process numbers we see.

    None where the system does not say (outside Linux).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """When a process began; None where there is none, or only its exit status waits for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[_START_TIME]
