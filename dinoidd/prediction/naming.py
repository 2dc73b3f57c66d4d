"""Local folder names for images that may come from anywhere.

The rule: an image that was named itself gets OUTPUT/NAME_segmentation, NAME without its suffix; one that
was found in a folder or by a glob keeps its folders below that: OUTPUT/sub/NAME_segmentation. Where that
folder belongs to another image (x.png beside x.jpg), it is NAME-XXXXXXXX_segmentation, with the first
eight hexadecimal digits of the sha256 of the image's address. A folder belongs to the image in the
first line of its class_statistics.txt, so an image keeps its folder when it is segmented again.
"""

import hashlib
import re
import unicodedata
from pathlib import Path
from posixpath import splitext

from dinoidd.errors import OutputError
from dinoidd.storage import normalise, shown

SUFFIX = "_segmentation"
STATISTICS = "class_statistics.txt"
_LONGEST = (
    180  # bytes of a name, of the 255 that file systems allow: suffixes and prefixes need room
)
_MAGIC = re.compile(r"[*?\[]")
_UNSAFE = re.compile(r'[/\\:*?"<>|]|^\.|[. ]$')  # separators, what Windows refuses, hidden names


def folders_below(uri: str, argument: str) -> list[str]:
    """The folders between what the user named and an image found there; [] where there are none."""
    root = normalise(argument).rstrip("/")
    magic = _MAGIC.search(root)
    if not uri.startswith(f"{root}/") and magic:  # what exists under the literal name wins
        root = root[: magic.start()].rpartition("/")[0]
    if not root or not uri.startswith(f"{root}/"):
        return []
    return uri[len(root) + 1 :].split("/")[:-1]


def safe_name(text: str) -> str:
    """One path component that is neither hidden nor above, whatever the text is.

    Unicode letters stay; control characters and separators become `_`. Too long a name loses its end
    for eight hexadecimal digits of its sha256.
    """
    printable = "".join(c if c.isprintable() else "_" for c in text)
    name = _UNSAFE.sub("_", printable) or "_"
    data = name.encode()
    if len(data) <= _LONGEST:
        return name
    return f"{data[: _LONGEST - 9].decode(errors='ignore')}-{digest(text)}"


def safe_folder(text: str) -> str:
    """A folder above images: never a name that an image's own folder could have."""
    name = safe_name(text)
    return f"{name}_" if name.casefold().endswith(SUFFIX) else name


def stem_of(name: str) -> str:
    """`street.jpg` is `street`, safely."""
    return safe_name(splitext(name)[0])


def digest(text: str) -> str:
    """Eight hexadecimal digits of the sha256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def owner_line(name: str, uri: str | None) -> str:
    """An image's identity in one printable line, without what signs an address."""
    if uri is None:
        return name
    text = shown(uri)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if text == uri else f"{text} ({digest(uri)})"


class FolderNames:
    """Gives every image of a command its folder; no two images share one."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._claimed: dict[str, str] = {}  # folder: owner, of those that may not be written yet

    def claim(self, uri: str, below: list[str]) -> Path:
        """The folder of an image whose folders below what was named are `below`.

        Raises:
            OutputError: both names are taken by other images.
        """
        parent = self._output.joinpath(*map(safe_folder, below))
        name = shown(uri).rpartition("/")[2]
        owner, stem = owner_line(name, uri), stem_of(name)
        for candidate in (stem, f"{stem}-{digest(uri)}"):
            folder = parent / f"{candidate}{SUFFIX}"
            key = unicodedata.normalize("NFC", str(folder)).casefold()  # as some disks compare
            if self._claimed.get(key, owner) == owner and owner_of(folder) in (None, owner):
                self._claimed[key] = owner
                return folder
        raise OutputError(f"{folder} holds something else: choose another --output")


def owner_of(folder: Path) -> str | None:
    """Whose folder it is: a line as of `owner_line`, None where there is no folder, "" if unknown."""
    try:
        with (folder / STATISTICS).open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")
    except (FileNotFoundError, NotADirectoryError):
        return "" if folder.exists() or folder.is_symlink() else None
    except (OSError, UnicodeDecodeError):
        return ""
