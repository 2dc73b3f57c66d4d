"""IDD (AutoNUE): the 26 training classes, the coarser levels, and two encodings of the label images."""

from dataclasses import replace

from dinoidd.classes.info import ClassInfo
from dinoidd.classes.level import make_level
from dinoidd.classes.raw import RawValues
from dinoidd.classes.table import ClassTable

# Level 3. Colours are the official ones, except where those are hard to tell apart on a mask (12, 16
# and 21 were greys next to pole, fence and the sky's fallback).
_LEVEL3 = {
    "road": (128, 64, 128),
    "parking": (81, 0, 81),
    "sidewalk": (244, 35, 232),
    "rail track": (230, 150, 140),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "autorickshaw": (255, 204, 54),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "vehicle fallback": (130, 80, 230),
    "curb": (200, 255, 120),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (210, 130, 230),
    "billboard": (174, 64, 67),
    "traffic sign": (220, 220, 0),
    "traffic light": (250, 150, 10),
    "pole": (153, 153, 153),
    "obs-str-bar-fallback": (0, 170, 160),
    "building": (70, 70, 70),
    "bridge": (150, 100, 100),
    "vegetation": (107, 142, 35),
    "sky": (70, 130, 180),
}
_OFFICIAL = {"parking": "drivable fallback", "rail track": "non-drivable fallback"}
# Names of groups are ours; a group has its first or its most typical member's colour.
LEVEL2 = make_level(
    "level2",
    [
        ("road", (128, 64, 128), [0]),
        ("parking", (81, 0, 81), [1]),
        ("sidewalk", (244, 35, 232), [2]),
        ("rail track", (230, 150, 140), [3]),
        ("person", (220, 20, 60), [4]),
        ("rider", (255, 0, 0), [5]),
        ("two-wheeler", (0, 0, 230), [6, 7]),
        ("autorickshaw and car", (0, 0, 142), [8, 9]),
        ("large vehicle", (0, 60, 100), [10, 11, 12]),
        ("curb and wall", (102, 102, 156), [13, 14]),
        ("fence and guard rail", (190, 153, 153), [15, 16]),
        ("billboard, sign and light", (220, 220, 0), [17, 18, 19]),
        ("pole and obstruction", (153, 153, 153), [20, 21]),
        ("building and bridge", (70, 70, 70), [22, 23]),
        ("vegetation", (107, 142, 35), [24]),
        ("sky", (70, 130, 180), [25]),
    ],
    len(_LEVEL3),
)
LEVEL1 = make_level(
    "level1",
    [
        ("drivable", (128, 64, 128), [0, 1]),
        ("non-drivable", (244, 35, 232), [2, 3]),
        ("living things", (220, 20, 60), [4, 5]),
        ("vehicles", (0, 0, 142), [6, 7, 8, 9, 10, 11, 12]),
        ("roadside objects", (220, 220, 0), [13, 14, 15, 16, 17, 18, 19, 20, 21]),
        ("far objects", (107, 142, 35), [22, 23, 24]),
        ("sky", (70, 130, 180), [25]),
    ],
    len(_LEVEL3),
)
IDD = ClassTable(
    name="idd",
    classes=tuple(
        ClassInfo(name=name, color=color, official=_OFFICIAL.get(name))
        for name, color in _LEVEL3.items()
    ),
    hierarchy=(LEVEL2, LEVEL1),
)
IDD_LEVEL2 = ClassTable(
    name="idd_level2",
    classes=LEVEL2.classes,
    hierarchy=(
        replace(LEVEL1, of=tuple(LEVEL1.of[LEVEL2.of.index(c)] for c in range(len(LEVEL2)))),
    ),
)
IDD_LEVEL1 = ClassTable(name="idd_level1", classes=LEVEL1.classes)
# The two encodings of IDD's level 3 label images that are found in the field.
IDD_OFFICIAL = IDD.raw_values
IDD_ROAD255 = RawValues(values={255: 0} | {i: i for i in range(1, len(IDD))})
IDD_ENCODINGS = {"official": IDD_OFFICIAL, "road255": IDD_ROAD255}
TABLE = "table"  # the encoding of every other table: its own raw values


def encodings_of(table: ClassTable) -> dict[str, RawValues]:
    """How label images of a table may be encoded, by name.

    A table with IDD's classes and raw values of its own is read as it says.
    """
    if table == IDD and table.raw_values == IDD_OFFICIAL:
        return dict(IDD_ENCODINGS)
    return {TABLE: table.raw_values}


def is_idd(table: ClassTable) -> bool:
    """Whether label images of the table are IDD's level 3, in one of their encodings."""
    return TABLE not in encodings_of(table)
