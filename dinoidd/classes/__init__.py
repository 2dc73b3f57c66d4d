"""Class tables: what class ids and raw label values mean. Everything that knows classes reads one."""

from dinoidd.classes.built_in import BUILT_IN, load_class_table
from dinoidd.classes.idd import (
    IDD,
    IDD_ENCODINGS,
    IDD_LEVEL1,
    IDD_LEVEL2,
    IDD_OFFICIAL,
    IDD_ROAD255,
    TABLE,
    encodings_of,
    is_idd,
)
from dinoidd.classes.info import ClassInfo
from dinoidd.classes.level import Level
from dinoidd.classes.raw import RawValues
from dinoidd.classes.table import IGNORE_INDEX, ClassTable

__all__ = [
    "BUILT_IN",
    "IDD",
    "IDD_ENCODINGS",
    "IDD_LEVEL1",
    "IDD_LEVEL2",
    "IDD_OFFICIAL",
    "IDD_ROAD255",
    "IGNORE_INDEX",
    "TABLE",
    "ClassInfo",
    "ClassTable",
    "Level",
    "RawValues",
    "encodings_of",
    "is_idd",
    "load_class_table",
]
