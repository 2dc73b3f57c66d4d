"""CamVid: 11 classes as single values or colours, and the 32 colours of the original labels."""

from dinoidd.classes.info import ClassInfo
from dinoidd.classes.level import make_level
from dinoidd.classes.raw import RawValues
from dinoidd.classes.table import IGNORE_INDEX, ClassTable

# The original 31 classes, under the one of the 11 that they are counted as; black is void.
_GROUPS = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {
        "Building": (128, 0, 0),
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "road": {
        "Road": (128, 64, 128),
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
    },
    "pavement": {
        "Sidewalk": (0, 0, 192),
        "ParkingBlock": (64, 192, 128),
        "RoadShoulder": (128, 128, 192),
    },
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign symbol": {
        "SignSymbol": (192, 128, 128),
        "Misc_Text": (128, 128, 64),
        "TrafficLight": (0, 64, 64),
    },
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "pedestrian": {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
_VOID = (0, 0, 0)
_FINE = {name: color for members in _GROUPS.values() for name, color in members.items()}
_IDS = {name: index for index, name in enumerate(_FINE)}
_COARSE = make_level(
    "camvid",
    [
        (group, next(iter(members.values())), [_IDS[name] for name in members])
        for group, members in _GROUPS.items()
    ],
    len(_FINE),
)
CAMVID32 = ClassTable(
    name="camvid32",
    classes=tuple(ClassInfo(name=name, color=color) for name, color in _FINE.items()),
    raw=RawValues(
        colors={color: _IDS[name] for name, color in _FINE.items()} | {_VOID: IGNORE_INDEX}
    ),
    hierarchy=(_COARSE,),
)
CAMVID = ClassTable(
    name="camvid",
    classes=_COARSE.classes,
    raw=RawValues(
        values={i: i for i in range(len(_COARSE))} | {len(_COARSE): IGNORE_INDEX},
        colors={color: _COARSE.of[_IDS[name]] for name, color in _FINE.items()}
        | {_VOID: IGNORE_INDEX},
    ),
)
