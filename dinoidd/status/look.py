"""One look at a run after the other: what its pieces on the store say."""

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dinoidd.errors import OutputError, StorageError
from dinoidd.output.schema import range_of
from dinoidd.segment.chunk_file import read_footer
from dinoidd.segment.holder import Holder
from dinoidd.segment.layout import IMAGES, STAGING
from dinoidd.segment.run_record import SUCCESS, RunRecord, read_record
from dinoidd.segment.tally import Tally, total
from dinoidd.status.session import living_session
from dinoidd.storage import ObjectInfo, Store

WORKING, STOPPED, FINISHED, LISTING = "working", "stopped", "finished", "listing its input"
_READERS = 16  # footers read at a time
_TRIES = 5  # pieces are joined and removed while they are looked at
_WINDOW_S = 300.0  # over which a rate is told where there are several looks


@dataclass(frozen=True, kw_only=True)
class Look:
    """A run at one moment. Rates and times are None where nothing tells them."""

    output: str
    state: str
    images: int = 0
    done: int = 0
    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # by kind
    images_per_second: float | None = None
    seconds_left: float | None = None
    seconds_since_progress: float | None = None
    session: Holder | None = None
    run_id: str | None = None
    started: str | None = None
    finished: str | None = None

    @property
    def left(self) -> int:
        return self.images - self.done


@dataclass(frozen=True)
class _Pieces:
    """The pieces of a run that are done: output files, and staged chunks that are in none of them."""

    files: dict[int, ObjectInfo]
    chunks: dict[int, ObjectInfo]


class Watcher:
    """Looks at one run, again and again; what was read once is not read again."""

    def __init__(self, output: Store) -> None:
        self.output = output
        self._tallies: dict[tuple[str, float | None], Tally] = {}
        self._seen: deque[tuple[float, int]] = deque()  # when, images done

    def look(self) -> Look:
        """Raises OutputError where no run was begun, StorageError where it cannot be read."""
        for _ in range(_TRIES - 1):
            try:
                return self._look()
            except StorageError as error:
                if error.kind != "missing":
                    raise
        return self._look()

    def _look(self) -> Look:
        record, session = read_record(self.output), living_session(self.output)
        if record is None:
            if session is None:
                raise OutputError(
                    f"{self.output.uri} is no run of dinoidd: nothing was begun there"
                )
            return Look(output=self.output.uri, state=LISTING, session=session)
        known: dict[str, Any] = {
            "output": self.output.uri,
            "session": session,
            "run_id": record.run_id,
            "started": record.started,
            "finished": record.finished,
        }
        if record.finished and record.counts:
            return Look(**known, **_result(record, self.output.exists(SUCCESS)))
        return Look(**known, **self._progress(record, session))

    def _progress(self, record: RunRecord, session: Holder | None) -> dict[str, Any]:
        pieces = _pieces(record, self.output)
        tally = self._tally(record, pieces)
        layout = record.layout
        rate = None if session is None else self._rate(record, session, pieces, tally.images)
        times = [p.modified for p in (*pieces.files.values(), *pieces.chunks.values())]
        newest = max((t for t in times if t is not None), default=None)
        return {
            "state": STOPPED if session is None else WORKING,
            "images": layout.rows,
            "done": tally.images,
            "ok": tally.ok,
            "errors": dict(tally.errors.most_common()),
            "images_per_second": rate,
            "seconds_left": (layout.rows - tally.images) / rate if rate else None,
            "seconds_since_progress": None if newest is None else max(0.0, time.time() - newest),
        }

    def _tally(self, record: RunRecord, pieces: _Pieces) -> Tally:
        """Of all pieces; a file that an earlier run left under the same name does not count."""
        layout = record.layout
        images, staging = self.output.child(IMAGES), self.output.child(STAGING, record.run_id)
        named = [(images, layout.file_name(f), info) for f, info in pieces.files.items()]
        named += [(staging, layout.chunk_name(c), info) for c, info in pieces.chunks.items()]

        def one(piece: tuple[Store, str, ObjectInfo]) -> Tally:
            folder, name, info = piece
            key = (name, info.modified)
            if key not in self._tallies:
                run_id, tally = read_footer(folder, name)
                self._tallies[key] = tally if run_id == record.run_id else Tally()
            return self._tallies[key]

        with ThreadPoolExecutor(_READERS) as pool:
            return total(pool.map(one, named))

    def _rate(self, record: RunRecord, session: Holder, pieces: _Pieces, done: int) -> float | None:
        """Images/s: between the looks of the last minutes, or since the session began."""
        now = time.time()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        before, earlier = self._seen[0]
        if done > earlier:
            return (done - earlier) / (now - before)
        since = datetime.strptime(session.since, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        layout, begun = record.layout, since.timestamp()
        fresh = sum(layout.rows_of(c) for c, p in pieces.chunks.items() if _after(p, begun))
        for file, piece in pieces.files.items():
            if _after(piece, begun):
                start, stop = layout.file_range(file)
                fresh += stop - start
        return fresh / max(now - begun, 1.0) or None


def _after(piece: ObjectInfo, moment: float) -> bool:
    return piece.modified is not None and piece.modified >= moment


def _result(record: RunRecord, marked: bool) -> dict[str, Any]:
    """Of a run that is finished, by its record; `marked`: nobody changes its files."""
    counts, session = record.counts, record.summary.get("session", {})
    return {
        "state": FINISHED if marked else f"{FINISHED}, and its files are being changed",
        "images": record.layout.rows,
        "done": counts["images"],
        "ok": counts["ok"],
        "errors": counts["errors"],
        "images_per_second": session.get("images_per_second"),
    }


def _pieces(record: RunRecord, output: Store) -> _Pieces:
    """By name: a name appears whole or not at all."""
    layout = record.layout
    files, chunks = {}, {}
    for entry in _listed(output.child(IMAGES)):
        found = range_of(entry.uri.rpartition("/")[2], "part")
        if found and found == layout.file_range(file := found[0] // layout.rows_per_file):
            files[file] = entry
    for entry in _listed(output.child(STAGING, record.run_id)):
        found = range_of(entry.uri.rpartition("/")[2], "chunk")
        if found and layout.file_of(chunk := found[0] // layout.rows_per_chunk) not in files:
            chunks[chunk] = entry
    return _Pieces(files, chunks)


def _listed(folder: Store) -> list[ObjectInfo]:
    return list(folder.walk(depth=0)) if folder.is_folder() else []
