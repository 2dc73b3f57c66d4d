"""What an evaluation is asked to do."""

from dataclasses import dataclass

from dinoidd.classes import (
    IDD,
    IDD_ENCODINGS,
    IDD_LEVEL1,
    IDD_LEVEL2,
    TABLE,
    ClassTable,
    RawValues,
    encodings_of,
    is_idd,
)
from dinoidd.errors import ConfigError
from dinoidd.evaluation.label_image import Size
from dinoidd.metrics.bootstrap import SAMPLES
from dinoidd.metrics.boundary import DEFAULT_RATIO
from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions

# The official script's, whose widths are not all 16:9. Its default is 720, the leaderboard's 1080.
RESOLUTIONS: dict[str, Size | None] = {
    "720": (1280, 720),
    "1080": (1920, 1080),
    "480": (858, 480),
    "240": (426, 240),
    "native": None,
}


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Everything but the predictions."""

    ground_truth: str  # a folder of label images
    split: str | None = None  # that they are of; None: the folder's name may tell
    table: ClassTable
    encoding: str = "official"  # of IDD's label images; other tables have their own raw values
    resolution: str = "720"
    label_suffix: str | None = None  # KIND of NAME_gtFine_KIND.png; None: the table's
    any_size: bool = False  # at native size, a prediction of another size is resized like its label
    boundary_ratio: float = DEFAULT_RATIO  # boundary width as a share of the diagonal
    samples: int = SAMPLES  # of the bootstrap
    seed: int = 0  # of the bootstrap
    options: StorageOptions = DEFAULT_OPTIONS

    def __post_init__(self) -> None:
        problems = []
        if self.resolution not in RESOLUTIONS:
            problems.append(f"--resolution {self.resolution}: there are {', '.join(RESOLUTIONS)}")
        if self.encoding not in IDD_ENCODINGS:
            problems.append(f"--encoding {self.encoding}: there are {', '.join(IDD_ENCODINGS)}")
        elif self.encoding != "official" and not self.is_idd:
            problems.append(
                f"--encoding {self.encoding} is one of IDD's; the class table '{self.table.name}' says "
                "itself what raw values mean"
            )
        if not 0 < self.boundary_ratio <= 0.5:
            problems.append(f"--boundary-ratio {self.boundary_ratio}: more than 0, at most 0.5")
        if self.samples < 100:
            problems.append(f"--bootstrap-samples {self.samples}: at least 100 make an interval")
        if self.seed < 0:
            problems.append(f"--seed {self.seed}: 0 or more is needed")
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def size(self) -> Size | None:
        """Width and height of the evaluation; None: each label's own."""
        return RESOLUTIONS[self.resolution]

    @property
    def is_idd(self) -> bool:
        """Whether label images are IDD's, in one of their encodings."""
        return is_idd(self.table)

    @property
    def read_as(self) -> str:
        """The encoding; of other class tables `table`."""
        return self.encoding if self.is_idd else TABLE

    @property
    def raw(self) -> RawValues:
        """What the ground truth's pixels mean."""
        return encodings_of(self.table)[self.read_as]


def default_resolution(table: ClassTable) -> str:
    """The official script's for IDD; other data sets are evaluated at the labels' own size."""
    return "720" if table in (IDD, IDD_LEVEL2, IDD_LEVEL1) else "native"
