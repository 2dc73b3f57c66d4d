"""Short names of images that are shown side by side."""

from collections import Counter
from collections.abc import Sequence

from dinoidd.storage import shown


def tails(uris: Sequence[str]) -> list[str]:
    """Of each address the fewest last parts that none of the others ends with.

    `a/1.jpg`, `b/1.jpg` and `b/2.jpg` are `a/1.jpg`, `b/1.jpg` and `2.jpg`. An address that is given
    twice has the same name twice; what signs a web address is left out.
    """
    parts = [tuple(shown(uri).split("/")) for uri in uris]
    ends = Counter(path[i:] for path in set(parts) for i in range(len(path)))

    def tail(path: tuple[str, ...]) -> str:
        alone = (path[i:] for i in reversed(range(len(path))) if ends[path[i:]] == 1)
        return "/".join(next(alone, path))  # none where the whole of it is the end of another

    return [tail(path) for path in parts]
