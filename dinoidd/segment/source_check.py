"""Whether images that cannot be had are lost alone, or with all that lies where they are.

Among many addresses one that is dead must not stop the others, so it is an error row. Where web servers
are out, or this node lacks the mount, every row of the rest of the run would become one. What tells them
apart are addresses that could be had before: a host that never answered is dead, and not out.
"""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from pathlib import Path

from dinoidd.errors import ClusterError, DinoiddError, OutageError
from dinoidd.storage import ObjectReader, StorageOptions, normalise
from dinoidd.storage.uri import printable, scheme_of, shown

SAMPLES = 16  # addresses all over the input, which do not all fail by chance
_WEB, _LOCAL = ("http", "https"), ("file",)
_ASKED = 5  # of a piece's own addresses
Read = Sequence[tuple[str, str | None]]  # an image's address and the kind of its error


def pick_witnesses(
    samples: Sequence[str], options: StorageOptions, *, whole: bool
) -> tuple[str, ...]:
    """Those of the samples that can be had when a session begins, for `check_source`.

    Args:
        whole: all of them, where there are none and they lie in one kind of place: the input is out as
            a whole then, or this machine is the one that lacks the mount.
    """
    seen = [uri for uri in samples if _is(uri, _LOCAL) and not _is_absent(uri)]
    seen += _answering([uri for uri in samples if _is(uri, _WEB)], options)
    if not seen and whole:
        seen = (
            [*samples] if any(all(_is(u, kind) for u in samples) for kind in (_WEB, _LOCAL)) else []
        )
    return tuple(seen)


def check_source(read: Read, witnesses: Sequence[str], options: StorageOptions) -> None:
    """Look at a piece of work that was read.

    Args:
        witnesses: addresses to ask where this piece has none that could be had (`pick_witnesses`).

    Raises:
        OutageError: of web addresses that answered before, none does now.
        ClusterError: this node has none of the folders.
    """
    lost, others = _lost(read, "unreachable", _WEB, witnesses)
    if lost:
        check_web(others, options, f"{printable(shown(lost[0]))} does not answer")
    lost, others = _lost(read, "missing", _LOCAL, witnesses)
    if others and all(map(_is_absent, lost[:1] + others)):
        folder = printable(str(Path(normalise(lost[0])).parent))
        raise ClusterError(
            f"{folder} is not there on {socket.gethostname()}, nor are the folders "
            f"of {len(others)} other images: mount them on every node, or take this one out. What is "
            "done is kept: run the same command again to resume"
        )


def check_web(uris: Sequence[str], options: StorageOptions, lost: str = "") -> None:
    """Raise OutageError where there are web addresses, and none answers; `lost` is what is known."""
    web = [uri for uri in uris if _is(uri, _WEB)]
    if not web or _answering(web, options):
        return
    if lost:
        what = f"{lost}, nor does any of {len(web)} other addresses that were asked"
    else:
        what = f"none of {len(web)} addresses answers, {printable(shown(web[0]))} for one"
    raise OutageError("unreachable", what)


def _lost(
    read: Read, kind: str, schemes: Sequence[str], witnesses: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The addresses of such a failure, and others that could be had before."""
    of_scheme = [(uri, how) for uri, how in read if _is(uri, schemes)]
    lost = [uri for uri, how in of_scheme if how == kind]
    # `unreadable` may be an address that nobody could be asked for
    others = [uri for uri, how in of_scheme if how not in (kind, "unreadable")][-_ASKED:]
    return lost, others or [uri for uri in witnesses if _is(uri, schemes)]


def _answering(uris: Sequence[str], options: StorageOptions) -> list[str]:
    """Those that answer; asked together, because each that does not takes its time."""
    with ThreadPoolExecutor(SAMPLES) as pool:
        return list(compress(uris, pool.map(ObjectReader(options).answers, uris)))


def _is_absent(uri: str) -> bool:
    """Whether an image's folder is not there for certain; any other trouble is the image's own."""
    try:
        Path(normalise(uri)).parent.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (DinoiddError, OSError, RuntimeError, ValueError):
        return False
    return False


def _is(uri: str, schemes: Sequence[str]) -> bool:
    return scheme_of(uri) in schemes
