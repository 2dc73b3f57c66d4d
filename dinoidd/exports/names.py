"""Local names for objects of any store: safe to write, and different for different objects.

An object's key may hold anything: `..`, line breaks, 1,000 letters, two keys that differ in case alone.
Letters, digits and `._-+=@,()` stay, the rest becomes `_`; names that are the same after that, on a
file system that ignores case, get the image_id: `frame~12`. Names depend on the whole manifest, never
on which images are exported.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinoidd.output.reader import RunReader
from dinoidd.storage import public

_UNSAFE = re.compile(r"[^A-Za-z0-9._\-+=@,()]")
_SAFE = frozenset("._-+=@,()")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
_IMAGE_END = re.compile(r"\.(png|jpe?g|webp|tiff?|bmp|dib)\Z", re.IGNORECASE)
_OFFICIAL = re.compile(r"(?:.*/)?leftImg8bit/([^/]+)/([^/]+)/([^/]+)_leftImg8bit\.\w+", re.DOTALL)
_LONGEST_PART = 150  # bytes; formats add up to 50, and file systems take 255
_LONGEST = 600  # bytes of a whole name


@dataclass(frozen=True, kw_only=True)
class Name:
    """Names of one image, relative, with `/` between their parts."""

    stem: (
        str  # no suffix: `val/drive/frame` for IDD's and Cityscapes' layout, else the image's path
    )
    official: bool  # IDD's and Cityscapes' layout
    split: str | None  # `train`, `val`, ... in that layout


class Names:
    """Names of a run's images. `root` is the folder that all of them share, with its last slash."""

    def __init__(self, root: str, shared: frozenset[int] = frozenset()) -> None:
        self.root = root
        self._shared = shared  # hashes of the names that are not unique

    @classmethod
    def of(cls, run: RunReader) -> "Names":
        """Reads the URIs of the run twice; 8 bytes an image are kept meanwhile."""
        names = cls(_root(run))
        hashes = [
            np.fromiter((_hash(names._plain(public(u)).stem) for u in uris.to_pylist()), np.uint64)
            for uris in _uris(run)
        ]
        found = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)
        twice = found[1:][found[1:] == found[:-1]]
        return cls(names.root, frozenset(twice.tolist()))

    def name(self, image_id: int, uri: str) -> Name:
        """The names of an image."""
        name = self._plain(public(uri))
        if not self._shared or _hash(name.stem) not in self._shared:
            return name
        return replace(name, stem=f"{name.stem}~{image_id}")

    def _plain(self, uri: str) -> Name:
        """The names as they would be if no other image had them."""
        if match := _OFFICIAL.fullmatch(uri):
            split, _, frame = match.groups()
            stem = _safe_path("/".join(match.groups()[:2]) + f"/{frame}")
            return Name(stem=stem, official=True, split=split)
        image = _safe_path(uri.removeprefix(self.root))
        return Name(stem=_IMAGE_END.sub("", image), official=False, split=None)


def _uris(run: RunReader) -> Iterator[pa.Array]:
    dataset = run.manifest() if run.manifest_files else run.images()
    for batch in dataset.to_batches(columns=["uri"]):
        yield batch.column("uri")


def common_folder(low: str, high: str) -> str:
    """What the smallest and the largest of many URIs share, and so all do; up to its last slash."""
    pairs = zip(low, high, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(low), len(high)))
    return low[: low.rfind("/", 0, same) + 1]


def _root(run: RunReader) -> str:
    ends = [pc.min_max(uris) for uris in _uris(run) if len(uris)]
    if not ends:
        return ""
    low, high = min(e["min"].as_py() for e in ends), max(e["max"].as_py() for e in ends)
    return common_folder(public(low), public(high))


def _safe_path(path: str) -> str:
    """The path with every part made safe; of a very long one the last two parts and a hash."""
    parts = [part for part in path.split("/") if part]
    safe = [_safe_part(part, folder=True) for part in parts[:-1]]
    safe += [_safe_part(part, folder=False) for part in parts[-1:] or ["_"]]
    whole = "/".join(safe)
    if len(whole.encode()) <= _LONGEST:
        return whole
    return "/".join([_digest("/".join(parts[:-2])), *safe[-2:]])


def _safe_part(part: str, *, folder: bool) -> str:
    """One folder or file name; a folder never looks like a file that an export writes."""
    if part.isascii():
        safe = _UNSAFE.sub("_", part)
    else:
        composed = unicodedata.normalize("NFC", part)  # as macOS and people see it
        safe = "".join(
            c if c in _SAFE or unicodedata.category(c)[0] in "LMN" else "_" for c in composed
        )
    safe = re.sub(r"^[.\-]+|\.+$", lambda m: "_" * len(m[0]), safe)
    if _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    if folder and _IMAGE_END.search(safe):
        safe += "_"
    return _shortened(safe, part)


def _shortened(safe: str, part: str) -> str:
    """At most _LONGEST_PART bytes, its suffix kept; a hash of the whole stands for what is cut."""
    if len(safe.encode()) <= _LONGEST_PART:
        return safe
    match = _IMAGE_END.search(safe)
    end = f"-{_digest(part)}{match[0] if match else ''}"
    return safe.encode()[: _LONGEST_PART - len(end)].decode(errors="ignore") + end


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hash(name: str) -> int:
    """Of what a file system that ignores case sees; equal by chance once in 10^5 runs of 10^7."""
    seen = unicodedata.normalize("NFC", name.casefold())
    return int.from_bytes(hashlib.blake2b(seen.encode(), digest_size=8).digest())
