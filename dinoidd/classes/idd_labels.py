"""IDD's labels as they stand in the polygon files, and their value in every encoding."""

from dataclasses import dataclass

from dinoidd.classes.raw import Color

# The encodings that label images are drawn in; also a part of their file names.
ENCODINGS = ("level3Id", "level2Id", "level1Id", "level4Id", "id", "csTrainId", "color")


@dataclass(frozen=True, kw_only=True)
class IddLabel:
    """One label: its name in the polygon files and its values; 255 is ignored."""

    name: str
    id: int
    cs_train_id: int
    level4: int
    level3: int
    level2: int
    level1: int
    color: Color

    def value(self, encoding: str) -> int | Color:
        """What a pixel of this label holds in label images of that encoding."""
        values = {
            "level1Id": self.level1,
            "level2Id": self.level2,
            "level3Id": self.level3,
            "level4Id": self.level4,
            "id": self.id,
            "csTrainId": self.cs_train_id,
        }
        return self.color if encoding == "color" else values[encoding]


# name: csTrainId, level4, level3, level2, level1, colour; the id is the position
_ROWS: dict[str, tuple[int, int, int, int, int, Color]] = {
    "road": (0, 0, 0, 0, 0, (128, 64, 128)),
    "parking": (255, 1, 1, 1, 0, (250, 170, 160)),
    "drivable fallback": (255, 2, 1, 1, 0, (81, 0, 81)),
    "sidewalk": (1, 3, 2, 2, 1, (244, 35, 232)),
    "rail track": (255, 3, 3, 3, 1, (230, 150, 140)),
    "non-drivable fallback": (9, 4, 3, 3, 1, (152, 251, 152)),
    "person": (11, 5, 4, 4, 2, (220, 20, 60)),
    "animal": (255, 6, 4, 4, 2, (246, 198, 145)),
    "rider": (12, 7, 5, 5, 2, (255, 0, 0)),
    "motorcycle": (17, 8, 6, 6, 3, (0, 0, 230)),
    "bicycle": (18, 9, 7, 6, 3, (119, 11, 32)),
    "autorickshaw": (255, 10, 8, 7, 3, (255, 204, 54)),
    "car": (13, 11, 9, 7, 3, (0, 0, 142)),
    "truck": (14, 12, 10, 8, 3, (0, 0, 70)),
    "bus": (15, 13, 11, 8, 3, (0, 60, 100)),
    "caravan": (255, 14, 12, 8, 3, (0, 0, 90)),
    "trailer": (255, 15, 12, 8, 3, (0, 0, 110)),
    "train": (16, 15, 12, 8, 3, (0, 80, 100)),
    "vehicle fallback": (255, 15, 12, 8, 3, (136, 143, 153)),
    "curb": (255, 16, 13, 9, 4, (220, 190, 40)),
    "wall": (3, 17, 14, 9, 4, (102, 102, 156)),
    "fence": (4, 18, 15, 10, 4, (190, 153, 153)),
    "guard rail": (255, 19, 16, 10, 4, (180, 165, 180)),
    "billboard": (255, 20, 17, 11, 4, (174, 64, 67)),
    "traffic sign": (7, 21, 18, 11, 4, (220, 220, 0)),
    "traffic light": (6, 22, 19, 11, 4, (250, 170, 30)),
    "pole": (5, 23, 20, 12, 4, (153, 153, 153)),
    "polegroup": (255, 23, 20, 12, 4, (153, 153, 153)),
    "obs-str-bar-fallback": (255, 24, 21, 12, 4, (169, 187, 214)),
    "building": (2, 25, 22, 13, 5, (70, 70, 70)),
    "bridge": (255, 26, 23, 13, 5, (150, 100, 100)),
    "tunnel": (255, 26, 23, 13, 5, (150, 120, 90)),
    "vegetation": (8, 27, 24, 14, 5, (107, 142, 35)),
    "sky": (10, 28, 25, 15, 6, (70, 130, 180)),
    "fallback background": (255, 29, 25, 15, 6, (169, 187, 214)),
    "unlabeled": (255, 255, 255, 255, 255, (0, 0, 0)),
    "ego vehicle": (255, 255, 255, 255, 255, (0, 0, 0)),
    "rectification border": (255, 255, 255, 255, 255, (0, 0, 0)),
    "out of roi": (255, 255, 255, 255, 255, (0, 0, 0)),
    "license plate": (255, 255, 255, 255, 255, (0, 0, 142)),
}
IDD_LABELS = {
    name: IddLabel(
        name=name,
        id=number,
        cs_train_id=train,
        level4=level4,
        level3=level3,
        level2=level2,
        level1=level1,
        color=color,
    )
    for number, (name, (train, level4, level3, level2, level1, color)) in enumerate(_ROWS.items())
}
BACKGROUND = IDD_LABELS["unlabeled"]


def find_label(name: str) -> IddLabel | None:
    """The label of that name; `cargroup` is `car` (and `polegroup` is a label of its own)."""
    return IDD_LABELS.get(name) or IDD_LABELS.get(name.removesuffix("group"))
