"""Whether images that cannot be had are lost alone, or with all that lies where they are.

Among many addresses one that is dead must not stop the others, so it is an error row. Where web servers
are out, or this node lacks the mount, every row of the rest of the run would become one.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dinoidd.errors import ClusterError, OutageError
from dinoidd.storage import ObjectReader, StorageOptions, normalise
from dinoidd.storage.uri import printable, scheme_of, shown

_WEB, _LOCAL = ("http", "https"), ("file",)
_ASKED = 5  # addresses, which do not all fail by chance
Read = Sequence[tuple[str, str | None]]  # an image's address and the kind of its error


def check_source(
    read: Read, elsewhere: Callable[[], Iterable[str]], options: StorageOptions
) -> None:
    """Look at a piece of work that was read.

    Args:
        elsewhere: addresses all over the input, asked for where this piece has none that is known.

    Raises:
        OutageError: of web addresses that answered a moment ago, or that lie elsewhere, none does now.
        ClusterError: this node has none of the folders.
    """
    lost, others = _lost(read, "unreachable", _WEB, elsewhere)
    if others and not any(map(ObjectReader(options).answers, others)):
        what = f"nor does any of {len(others)} other addresses that were asked"
        raise OutageError("unreachable", f"{printable(shown(lost[0]))} does not answer, {what}")
    lost, others = _lost(read, "missing", _LOCAL, elsewhere)
    folders = [Path(normalise(uri)).parent for uri in (lost[:1] + others if others else [])]
    if folders and not any(folder.exists() for folder in folders):
        raise ClusterError(
            f"{printable(str(folders[0]))} is not there on {socket.gethostname()}, nor are the folders "
            f"of {len(others)} other images: mount them on every node, or take this one out. What is "
            "done is kept: run the same command again to resume"
        )


def _lost(
    read: Read, kind: str, schemes: Sequence[str], elsewhere: Callable[[], Iterable[str]]
) -> tuple[list[str], list[str]]:
    """The addresses of such a failure, and others to compare them with: none if nothing is lost."""
    of_scheme = [(uri, how) for uri, how in read if scheme_of(uri) in schemes]
    lost = [uri for uri, how in of_scheme if how == kind]
    if not lost:
        return [], []
    others = [uri for uri, how in of_scheme if how != kind]
    if not others:
        others = [u for u in elsewhere() if scheme_of(u) in schemes and u not in lost]
    return lost, others[-_ASKED:]
