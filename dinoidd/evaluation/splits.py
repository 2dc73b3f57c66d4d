"""Which split the ground truth is of, and which predictions are of another: by their folders' names."""

import re
from dataclasses import dataclass, field

from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions, Store

_COMMON = {"train", "val", "test"}
_OFFICIAL = re.compile(r"(?:^|/)(?:leftImg8bit|gtFine)/([^/]+)/.+$")
_ANNOT = "annot"  # SPLIT/NAME.png with SPLITannot/NAME.png


@dataclass(frozen=True)
class Splits:
    """The split of a folder of label images; others are train, val, test and the folders beside it."""

    wanted: str | None  # None: not known, or several
    root: str
    options: StorageOptions = DEFAULT_OPTIONS
    _beside: dict[str, bool] = field(default_factory=dict, init=False, compare=False)

    @classmethod
    def of(cls, root: str, split: str | None, options: StorageOptions) -> "Splits":
        """Of a folder of label images; without `split`, the folder's own name may tell."""
        return cls(split or _split_of(root), root, options)

    def other(self, folder: str, depth: int) -> str | None:
        """The split of the predictions in a folder, where it is another one; None: it may be ours.

        Args:
            folder: below the predictions' root and with its name, or the whole path of an image.
            depth: how many of its last parts may tell the split; the innermost one counts.
        """
        if self.wanted is None:
            return None
        if match := _OFFICIAL.search(folder):
            return None if match[1] == self.wanted else match[1]
        for part in reversed(folder.split("/")[-depth:]):
            name = part.removesuffix(_ANNOT)
            if name == self.wanted:
                return None
            if name in _COMMON or self._is_beside(name):
                return name
        return None

    def _is_beside(self, name: str) -> bool:
        if not name.strip("."):
            return False
        if name not in self._beside:
            above, _, own = self.root.rstrip("/").rpartition("/")
            folder = f"{name}{_ANNOT}" if own.endswith(_ANNOT) else name
            self._beside[name] = Store.open(f"{above}/{folder}", self.options).is_folder()
        return self._beside[name]


def _split_of(root: str) -> str | None:
    if match := _OFFICIAL.search(f"{root}/*"):
        return match[1]
    name = root.rpartition("/")[2].removesuffix(_ANNOT)
    return name if name in _COMMON else None
