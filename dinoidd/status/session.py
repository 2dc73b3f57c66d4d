"""Who works on an output, as its files tell it; nothing is locked or written."""

import json
import time

from dinoidd.errors import StorageError
from dinoidd.segment.heartbeat import FOLDER, WATCH_S
from dinoidd.segment.holder import Holder
from dinoidd.segment.lock import NAME
from dinoidd.storage import Store


def living_session(output: Store) -> Holder | None:
    """The session that works on an output; None where nobody does.

    One on another machine counts until its heartbeat is late; a file in a local folder goes with its
    process, so there only a killed one of this machine is known to be dead.
    """
    candidates = [_read(output, NAME)] if output.exists(NAME) else []
    beats = output.child(FOLDER)
    for entry in beats.walk() if beats.is_folder() else ():
        if entry.modified is None or time.time() - entry.modified < WATCH_S:
            candidates.append(_read(beats, entry.uri.rpartition("/")[2]))
    return next((h for h in candidates if h is not None and not h.is_dead), None)


def _read(folder: Store, name: str) -> Holder | None:
    """None where it has ended meanwhile, or is not written yet."""
    try:
        return Holder.from_dict(json.loads(folder.read_bytes(name)))
    except (StorageError, ValueError, TypeError, KeyError):
        return None
