"""FiftyOne's ImageSegmentationDirectory: `data/` and `labels/` with the same names."""

import json

import numpy as np

from dinoidd.exports.format import Format, Item
from dinoidd.exports.label_image import encode_labels
from dinoidd.exports.original_file import OriginalFile, try_original_file

_README = """\
# {about}

    import json
    import fiftyone as fo

    dataset = fo.Dataset.from_dir(
        dataset_dir=DIR, dataset_type=fo.types.ImageSegmentationDirectory, label_field="segmentation"
    )
    targets = json.load(open(f"{{DIR}}/mask_targets.json"))
    dataset.default_mask_targets = {{int(value): name for value, name in targets.items()}}
    dataset.save()

A label's pixel value is the class id plus 1: FiftyOne does not show 0.
"""


class FiftyOne(Format[str]):
    """Images are copied, because FiftyOne reads media from files; labels are class id + 1."""

    def prepare(self, item: Item) -> str:
        """Write image and label; the kind of error where there is no image."""
        label = f"labels/{item.name.stem}.png"
        labels_HW = item.decode_mask() + np.uint8(1)
        original = try_original_file(self.context.reader, item.row["uri"], item.size)
        if not isinstance(original, OriginalFile):
            return original
        data = f"data/{item.name.stem}{original.suffix}"
        if not self.context.folder.has(data):
            self.context.folder.write(data, original.data)
        if not self.context.folder.has(label):  # last: every label has its image
            self.context.folder.write(label, encode_labels(labels_HW))
        return data

    def add(self, item: Item, result: str) -> str | None:
        """Count the images that could not be read."""
        if not result.startswith("data/"):
            self.note_missing(item, result)
            return None
        return result

    def finish(self) -> None:
        """Write what the values mean, and how to load the folder."""
        targets = {i + 1: name for i, name in enumerate(self.context.table.names)}
        text = json.dumps(targets, indent=1, ensure_ascii=False)
        self.context.folder.write("mask_targets.json", text.encode())
        self.context.folder.write("README.md", _README.format(about=self.context.about).encode())
        if self.missing_originals:
            self.notes.append(
                self.missing_sentence("so it is left out: FiftyOne shows no mask without its image")
            )
