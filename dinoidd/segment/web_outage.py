"""Whether web servers are out as a whole.

Among many addresses one that is dead must not stop the others, so an address that does not answer is an
error row. Where nothing answers, every row of the rest of the run would become one.
"""

from collections.abc import Callable, Iterable, Sequence

from dinoidd.errors import OutageError
from dinoidd.storage import ObjectReader, StorageOptions
from dinoidd.storage.uri import printable, scheme_of, shown

_ASKED = 5  # addresses, none of which answers by chance


def check_web(
    read: Sequence[tuple[str, str | None]],
    elsewhere: Callable[[], Iterable[str]],
    options: StorageOptions,
) -> None:
    """Look at a piece of work that was read.

    Args:
        read: each image's address and the kind of its error.
        elsewhere: addresses all over the input, asked for where this piece has none that answered.

    Raises:
        OutageError: of addresses that answered a moment ago, or that lie elsewhere, none does now.
    """
    lost = {uri for uri, kind in read if kind == "unreachable" and _is_web(uri)}
    if not lost:
        return
    others = [uri for uri, kind in read if kind != "unreachable" and _is_web(uri)]
    others = others or [uri for uri in elsewhere() if _is_web(uri) and uri not in lost]
    asked = others[-_ASKED:]
    if asked and not any(map(ObjectReader(options).answers, asked)):
        what = f"nor does any of {len(asked)} other addresses that were asked"
        raise OutageError("unreachable", f"{printable(shown(min(lost)))} does not answer, {what}")


def _is_web(uri: str) -> bool:
    return scheme_of(uri) in ("http", "https")
