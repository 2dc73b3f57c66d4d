"""Cityscapes: the 19 evaluated classes, read from `labelIds` or from `labelTrainIds` images."""

from dinoidd.classes.info import ClassInfo
from dinoidd.classes.raw import RawValues
from dinoidd.classes.table import IGNORE_INDEX, ClassTable

# name: raw value in labelIds images, colour
_CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
_NOT_EVALUATED = sorted(set(range(34)) - {value for value, _ in _CLASSES.values()})
_INFOS = tuple(ClassInfo(name=name, color=color) for name, (_, color) in _CLASSES.items())
_VALUES = {value: index for index, (value, _) in enumerate(_CLASSES.values())}
CITYSCAPES = ClassTable(
    name="cityscapes",
    classes=_INFOS,
    raw=RawValues(values=_VALUES | dict.fromkeys(_NOT_EVALUATED, IGNORE_INDEX)),
)
CITYSCAPES_TRAIN_IDS = ClassTable(name="cityscapes_train_ids", classes=_INFOS)
