"""A folder of label images under the official names, as IDD's tools read them."""

from dinoidd.classes import ClassTable
from dinoidd.classes.built_in import BUILT_IN
from dinoidd.exports.format import Format, Item
from dinoidd.exports.label_image import encode_labels

# A class id of these tables is the value that the file name promises.
_ENCODINGS = {
    "idd": "labellevel3Ids",
    "idd_level2": "labellevel2Ids",
    "idd_level1": "labellevel1Ids",
    "cityscapes": "labelTrainIds",
    "cityscapes_train_ids": "labelTrainIds",
}
_OTHER = "labelClassIds"


def encoding_of(table: ClassTable) -> str:
    """The part of the official file names that tells what the values mean."""
    known = table.name in _ENCODINGS and BUILT_IN[table.name] == table
    return _ENCODINGS[table.name] if known else _OTHER


class PngFolder(Format[str]):
    """`gtFine/{split}/{drive}/{frame}_gtFine_labellevel3Ids.png`, or `masks/{path}.png`.

    Values are class ids.
    """

    def prepare(self, item: Item) -> str:
        """Write the label image."""
        encoding = encoding_of(self.context.table)
        stem = item.name.stem
        official = item.name.official
        file = f"gtFine/{stem}_gtFine_{encoding}.png" if official else f"masks/{stem}.png"
        if not self.context.folder.has(file):
            self.context.folder.write(file, encode_labels(item.decode_mask()))
        return file

    def add(self, item: Item, result: str) -> str:
        """Nothing but the file's name."""
        return result

    def finish(self) -> None:
        """Nothing to write."""
