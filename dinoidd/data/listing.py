"""Which images an input names: a folder or prefix, one image, a glob, or a list of URIs.

Listings are streams: a page of S3 keys, one local folder or a batch of a list is in memory, never
all of them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from posixpath import splitext

from dinoidd.data.uri_list import LIST_SUFFIXES, list_entries
from dinoidd.errors import InputError
from dinoidd.storage import DEFAULT_OPTIONS, ObjectInfo, StorageOptions, Store, normalise, shown

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
HIDDEN = "(hidden)"
NO_SUFFIX = "(no suffix)"
NOT_TEXT = "(name is not UTF-8)"
_MAGIC = re.compile(r"[*?\[]")


def list_images(
    uri: str,
    options: StorageOptions = DEFAULT_OPTIONS,
    *,
    counts: Counter[str] | None = None,
) -> Iterator[ObjectInfo]:
    """The images of an input, one by one.

    `uri` is a folder or prefix (with all below it), a single image, a glob (`*`, `**`, `?`,
    `[...]`; what exists under the literal name wins), or a `.txt`, `.csv` or `.parquet` list of
    URIs, every entry of which counts as an image. In folders and globs an image is told by its
    suffix, in any case; the other files are left out and counted in `counts`: by suffix, as
    `(hidden)` where a file or a folder below the input begins with a dot (a glob that asks for
    dots gets them), and as `(name is not UTF-8)`. Files called `_x` are images like any other.

    Raises InputError or StorageError where the input cannot be listed or holds no image.
    """
    left_out = Counter() if counts is None else counts
    found = 0
    for image in _source(uri, options)(left_out):
        found += 1
        yield image
    if not found:
        raise InputError(f"{shown(uri)} holds no image: {_seen(left_out)}")


Source = Callable[[Counter[str]], Iterator[ObjectInfo]]


def _source(uri: str, options: StorageOptions) -> Source:
    """What kind of input it is; the store is asked at most three times."""
    name = normalise(uri)
    folder, _, file = name.rpartition("/")
    if name.startswith("s3://") and _MAGIC.search(name.split("/")[2]):
        raise InputError(f"{name}: the name of a bucket cannot be a pattern")
    if not uri.endswith("/") and file and not folder.endswith(":/"):
        parent = Store.open(folder or "/", options)
        info = parent.info(file)
        if info is not None:
            return _single(parent, info)
    store = Store.open(name, options)
    if store.is_folder():
        return lambda counts: _only_images(store.walk(), store, counts)
    if _MAGIC.search(name):
        return lambda counts: _glob(name, options, counts)
    raise InputError(f"there is no file or folder {shown(uri)}: check the spelling")


def _single(parent: Store, info: ObjectInfo) -> Source:
    """One file that the user named: a list, or an image."""
    suffix = suffix_of(info.uri)
    if suffix in LIST_SUFFIXES:
        return lambda counts: list_entries(parent, info.uri)
    if suffix in IMAGE_SUFFIXES:
        return lambda counts: iter([info])
    known = " ".join(sorted(IMAGE_SUFFIXES))
    lists = " ".join(sorted(LIST_SUFFIXES))
    raise InputError(
        f"{shown(info.uri)} is neither an image ({known}) nor a list of images ({lists}): "
        "rename it, or name it in a list"
    )


def _glob(pattern: str, options: StorageOptions, counts: Counter[str]) -> Iterator[ObjectInfo]:
    """The images that fit; only the folder before the first wildcard is walked."""
    first = _MAGIC.search(pattern)
    assert first is not None
    literal = pattern[: first.start()]
    folder, _, starts = literal.rpartition("/")
    store = Store.open(folder or "/", options)
    if not store.is_folder():
        raise InputError(f"there is no folder {shown(store.uri)}, where {shown(pattern)} begins")
    rest = pattern[len(folder) + 1 :]
    depth = None if "**" in rest else rest.count("/")
    fits = glob_regex(rest)
    base = len(store.uri.rstrip("/")) + 1
    walk = store.walk(starts, depth)
    matching = (info for info in walk if fits.fullmatch(info.uri, base))
    dots = any(part.startswith(".") for part in rest.split("/"))
    yield from _only_images(matching, store, counts, hidden=dots)


def _only_images(
    files: Iterator[ObjectInfo], store: Store, counts: Counter[str], *, hidden: bool = False
) -> Iterator[ObjectInfo]:
    """Keep what is an image by its name; count the rest."""
    base = len(store.uri.rstrip("/")) + 1
    for info in files:
        reason = _left_out(info.uri, base, hidden)
        if reason is None:
            yield info
        else:
            counts[reason] += 1


def _left_out(uri: str, base: int, hidden: bool) -> str | None:
    """Why a file is no image, None if it is one; `uri[base:]` is its path below the input."""
    if not hidden and (uri.startswith(".", base) or uri.find("/.", base) >= 0):
        return HIDDEN
    suffix = suffix_of(uri)
    if suffix not in IMAGE_SUFFIXES:
        return suffix if suffix.isprintable() and suffix else NO_SUFFIX
    try:
        uri.encode()
    except UnicodeEncodeError:  # bytes that are no text cannot stand in a Parquet string
        return NOT_TEXT
    return None


def suffix_of(uri: str) -> str:
    """The suffix in lower case with its dot, or an empty string."""
    return splitext(shown(uri).rpartition("/")[2])[1].lower()


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob over paths as a regular expression: `**` crosses slashes, `*` and `?` do not."""
    out, at = "", 0
    while at < len(pattern):
        token = _GLOB_TOKEN.match(pattern, at)
        assert token is not None
        at = token.end()
        text = token[0]
        if text in _GLOB_MEANING:
            out += _GLOB_MEANING[text]
        elif token["set"]:
            negated = token["set"][0] in "!^"
            body = re.sub(r"([\\\[\]&~|])", r"\\\1", token["set"][negated:])
            out += f"(?!/)[{'^' if negated else ''}{body}]"
        else:
            out += re.escape(text)
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise InputError(f"the pattern {pattern!r} makes no sense: {error}") from error


_GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[(?P<set>[!^]?\]?[^\]/]+|[!^]?\])\]|.", re.DOTALL)
_GLOB_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _seen(counts: Counter[str]) -> str:
    """What was there instead of images."""
    if not counts:
        return "it is empty, or nothing fits the pattern"
    seen = ", ".join(f"{number:,} {what}" for what, number in counts.most_common(8))
    return f"there are only {seen}"
