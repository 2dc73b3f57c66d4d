"""The built-in class tables, and a user's own from a JSON file."""

import json
from pathlib import Path

from dinoidd.classes.ade20k import ADE20K
from dinoidd.classes.camvid import CAMVID, CAMVID32
from dinoidd.classes.cityscapes import CITYSCAPES, CITYSCAPES_TRAIN_IDS
from dinoidd.classes.idd import IDD, IDD_LEVEL1, IDD_LEVEL2
from dinoidd.classes.table import ClassTable
from dinoidd.errors import ClassTableError

BUILT_IN = {
    table.name: table
    for table in (
        IDD,
        IDD_LEVEL2,
        IDD_LEVEL1,
        CITYSCAPES,
        CITYSCAPES_TRAIN_IDS,
        ADE20K,
        CAMVID,
        CAMVID32,
    )
}


def load_class_table(name_or_file: str) -> ClassTable:
    """The built-in table of that name, or the table in that JSON file.

    Raises:
        ClassTableError: neither a built-in name nor a readable, valid file.
    """
    if name_or_file in BUILT_IN:
        return BUILT_IN[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".json" or not path.is_file():
        raise ClassTableError(
            f"unknown class table '{name_or_file}': built in are {sorted(BUILT_IN)}; "
            "your own is the path of an existing .json file"
        )
    try:
        return ClassTable.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise ClassTableError(f"class table {path} is not JSON: {error}") from error
    except ClassTableError as error:
        raise ClassTableError(f"{path}: {error}") from error
