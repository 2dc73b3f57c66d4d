"""One session of work on an output at a time; who comes second is told who is there.

In a local folder the lock is the kernel's, on `OUTPUT/_session`: it ends with its process, however
that ends. It may be known to one machine alone, also where that machine's disk is mounted by others: so
a heartbeat is held beside it. Where there are no locks, in object storage, the heartbeat stands alone.
"""

import contextlib
import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dinoidd.errors import OutputError
from dinoidd.log import logger
from dinoidd.segment.file_system import is_of_one_machine
from dinoidd.segment.heartbeat import FOLDER, Heartbeat, Held
from dinoidd.segment.holder import Holder
from dinoidd.storage import Store
from dinoidd.storage.uri import scheme_of

NAME = "_session"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of some network file systems
_TRIES = 50
_TRY_S = 0.02


class Lock(Protocol):
    """What keeps others away."""

    def acquire(self) -> None: ...
    def check(self, *, now: bool = True) -> None: ...
    def release(self) -> None: ...


@contextmanager
def exclusive(output: Store, what: str) -> Iterator[Lock]:
    """Be the only session that writes to an output, for as long as the block lasts.

    Call the lock's `check()` before what cannot be undone: it raises OutputError where another session
    has taken over meanwhile (`now=False`: by what is known, without asking the store).

    Args:
        what: the command, as another session is told.

    Raises:
        OutputError: another session works on it; names its host, process and beginning.
        StorageError: the store cannot be read or written.
    """
    lock = _acquired(output, Holder.me(what))
    try:
        yield lock
    finally:
        lock.release()


def _acquired(output: Store, me: Holder) -> Lock:
    try:
        file = _locked_file(output, me) if scheme_of(output.uri) == "file" else None
        lock = Heartbeat(output, me) if file is None else FolderLock(output, me, file)
        lock.acquire()
        return lock
    except Held as held:
        raise OutputError(
            f"another session works on {output.uri}: {held.args[0] or 'it has just begun'}. Wait "
            "for its end, stop it, or choose another --output"
        ) from held


def _locked_file(output: Store, me: Holder) -> "FileLock | None":
    """None where the file system has no locks. Raises Held, OutputError."""
    file = FileLock(output, me)
    try:
        file.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(f"{output.uri} cannot be locked: {error}") from error
        logger.info(f"the file system of {output.uri} has no locks: using a heartbeat")
        return None
    return file


class FileLock:
    """A lock on a file of a local folder; the file goes with it."""

    def __init__(self, output: Store, me: Holder) -> None:
        self._output, self._me = output, me
        self._path = Path(output.uri) / NAME
        self._file = -1

    def acquire(self) -> None:
        """Leaves what is written in it. Raises Held; OSError where the file system has no locks."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._holder()
                os.close(self._file)
                raise Held(holder) from None
            except OSError:
                os.close(self._file)
                raise
            if self._is_there():
                return
            os.close(self._file)  # its last holder removed it while we opened it
        raise Held(None)

    def sign(self) -> None:
        """Say who holds it."""
        os.truncate(self._file, 0)
        os.write(self._file, json.dumps(self._me.to_dict()).encode())

    def _holder(self) -> Holder | None:
        """Who holds it, as the file says as soon as it is written."""
        for _ in range(_TRIES):
            try:
                return Holder.from_dict(json.loads(os.pread(self._file, 1 << 16, 0)))
            except (ValueError, TypeError, KeyError):
                time.sleep(_TRY_S)
        return None

    def _is_there(self) -> bool:
        """Whether the locked file is the one that others find."""
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def check(self, *, now: bool = True) -> None:
        """Raises OutputError where the file is not ours any more; looking costs nothing here."""
        if not self._is_there():
            raise OutputError(
                f"{self._path} was removed or replaced while this session worked, so another may "
                "work beside it: this one stops. What it did is kept; run the same command again"
            )

    def release(self) -> None:
        if self._is_there():
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Let others in, and leave the file to them."""
        os.close(self._file)


class FolderLock:
    """A FileLock with a heartbeat beside it: in a mounted bucket, in Lustre or NFS by some options, and
    on a disk that NFS shows to others, each machine has file locks of its own.

    Args:
        file: is acquired.
    """

    def __init__(self, output: Store, me: Holder, file: FileLock) -> None:
        own = is_of_one_machine(Path(output.uri))
        self._file, self._folder = file, Path(output.uri) / FOLDER
        self._heartbeat = Heartbeat(output, me, kernel=sys.platform if own else None)

    def acquire(self) -> None:
        """The file is signed last: one that another machine holds is not touched. Raises as both do."""
        try:
            self._heartbeat.acquire()
        except BaseException:
            self._file.close()
            raise
        try:
            self._file.sign()
        except OSError as error:
            self.release()
            raise OutputError(f"{self._folder.parent} cannot be locked: {error}") from error

    def check(self, *, now: bool = True) -> None:
        """Raises OutputError where another session has taken over."""
        self._file.check(now=now)
        self._heartbeat.check(now=now)

    def release(self) -> None:
        """The file lock goes last: whoever gets it then finds no heartbeat of ours to wonder about."""
        self._heartbeat.release()
        with contextlib.suppress(OSError):  # others are in it, or the store is away
            self._folder.rmdir()
        self._file.release()
