"""Label images with Cityscapes' ids, for the classes whose names Cityscapes knows."""

import json
from collections import Counter
from functools import cached_property

import numpy as np

from dinoidd.classes import ClassTable
from dinoidd.classes.cityscapes import CITYSCAPES
from dinoidd.errors import ConfigError
from dinoidd.exports.format import Context, Format, Item
from dinoidd.exports.label_image import encode_labels

# The ids of Cityscapes' classes that take no part in its evaluation; 0 is "unlabeled".
_NOT_EVALUATED = {
    "ground": 6,
    "parking": 9,
    "rail track": 10,
    "guard rail": 14,
    "bridge": 15,
    "tunnel": 16,
    "polegroup": 18,
    "caravan": 29,
    "trailer": 30,
}


def cityscapes_ids() -> dict[str, int]:
    """Cityscapes' `labelIds` by class name."""
    values = {CITYSCAPES.names[c]: v for v, c in CITYSCAPES.raw_values.values.items() if c != 255}
    return values | _NOT_EVALUATED


class CityscapesFolder(Format[str]):
    """`gtFine/{split}/{city}/{frame}_gtFine_labelIds.png`.

    Raises:
        ConfigError: no class has a name that Cityscapes knows.
    """

    columns = ("uri", "height", "width", "mask", "pixels")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if not any(self.ids.values()):
            raise ConfigError(
                f"none of the classes of '{context.table.name}' is one of Cityscapes': "
                "use --format png, which keeps the class ids"
            )
        self._pixels: Counter[str] = Counter()

    @property
    def ids(self) -> dict[str, int]:
        """Cityscapes' id of every class of the run; 0 where it has none."""
        return match_ids(self.context.table)

    @cached_property
    def _lookup(self) -> np.ndarray:
        return np.array(list(self.ids.values()) + [0] * (256 - len(self.ids)), np.uint8)

    def prepare(self, item: Item) -> str:
        """Write the label image."""
        file = f"gtFine/{item.name.stem}_gtFine_labelIds.png"
        if not self.context.folder.has(file):
            self.context.folder.write(file, encode_labels(self._lookup[item.decode_mask()]))
        return file

    def add(self, item: Item, result: str) -> str:
        """Count what the classes without an id cover."""
        self._pixels.update(item.row["pixels"])
        return result

    def finish(self) -> None:
        """Write which class got which id, and name those that got none."""
        text = json.dumps({"unlabeled": 0, "classes": self.ids}, indent=1, ensure_ascii=False)
        self.context.folder.write("label_ids.json", text.encode())
        whole = self._pixels.total() or 1
        table = self.context.table
        left_out = [
            f"{name} ({self._pixels[field] / whole:.2%})"
            for name, field in zip(table.names, table.fields, strict=True)
            if not self.ids[name]
        ]
        if left_out:
            self.notes.append(
                "not among Cityscapes' classes, and 0 (unlabeled) in the label images, with their "
                f"share of all pixels: {', '.join(left_out)}"
            )


def match_ids(table: ClassTable) -> dict[str, int]:
    """Cityscapes' id by class name; 0 where Cityscapes has no class of that name."""
    known = {name.replace(" ", "_"): value for name, value in cityscapes_ids().items()}
    return {
        name: known.get(field, 0) for name, field in zip(table.names, table.fields, strict=True)
    }
