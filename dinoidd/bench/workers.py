"""The memory that the processes of an embedded Ray take at most, by the stage they work for."""

import os
import re
import threading
from pathlib import Path
from types import TracebackType

_TITLES = {
    "read": "ray::MapBatches(read_rows)",
    "model": "ray::MapWorker(",
    "write": "ray::MapBatches(write_rows)",
}
_POLL_S = 0.5
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class WorkerPeaks:
    """Looks at this process's descendants as long as the block lasts; sees nothing outside Linux.

    `bytes` are the largest process's of each stage, its share of the object store included.
    """

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="peaks", daemon=True)

    def _follow(self) -> None:
        while not self._ended.wait(_POLL_S):
            self.look()

    def look(self) -> None:
        """Look once."""
        for process in descendants(os.getpid()):
            for stage, title in _TITLES.items():
                if title.encode() in _read(process, "cmdline"):
                    self.bytes[stage] = max(self.bytes.get(stage, 0), _peak(process))

    def __enter__(self) -> "WorkerPeaks":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()


def descendants(ancestor: int) -> list[int]:
    """The ids of all processes that a process has started, and those in turn."""
    parents = {int(p.name): _parent(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
    found, new = set[int](), {ancestor}
    while new:
        new = {process for process, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def _parent(process: int) -> int | None:
    fields = _read(process, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def _peak(process: int) -> int:
    found = _PEAK.search(_read(process, "status").decode())
    return 1024 * int(found[1]) if found else 0


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""
