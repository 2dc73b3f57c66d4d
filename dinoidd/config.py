"""The configuration of a segmentation run: validated once, all mistakes told together."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dinoidd.errors import ConfigError

DTYPES = ("auto", "float32", "bfloat16", "float8", "int8")
BLENDS = ("mean", "hann")
TTA_SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)  # of the short side, in DINOv3's evaluation


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Sliding-window inference. Windows, stride and scales are those of DINOv3's evaluation on ADE20K
    (arXiv 2508.10104)."""

    size: int = 896  # pixels of a window's side; the network sees it padded to a multiple of 32
    stride: int = 596  # pixels from window to window
    short_side: int | None = 896  # what the image's short side is resized to; None: as it is
    blend: str = "mean"  # of overlapping windows; hann: their middles weigh more
    scales: tuple[float, ...] = (1.0,)  # of the short side; more than one are averaged
    flip: bool = False  # average with the answer for the mirrored image

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError("; ".join(problems))

    @property
    def augmented(self) -> bool:
        """Whether an image is seen in more than one way (test-time augmentation)."""
        return self.flip or len(self.scales) > 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` is the way back."""
        return asdict(self) | {"scales": list(self.scales)}

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> "Windows | None":
        if values is None:
            return None
        return cls(**values | {"scales": tuple(values["scales"])})

    def _problems(self) -> Iterator[str]:
        if self.size < 32:
            yield f"--window {self.size}: at least 32 pixels are needed"
        if not 1 <= self.stride <= self.size:
            yield f"--stride {self.stride}: from 1 to the window's {self.size}, or pixels are left out"
        if self.short_side is not None and self.short_side < 1:
            yield f"--short-side {self.short_side}: at least 1 pixel is needed"
        if self.blend not in BLENDS:
            yield f"--blend {self.blend}: there are {', '.join(BLENDS)}"
        if not self.scales or not all(0.1 <= scale <= 10 for scale in self.scales):
            yield f"--tta {','.join(map(str, self.scales))}: scales from 0.1 to 10 are needed"


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """What `dinoidd segment` was asked to do."""

    input: str  # folder, bucket prefix, glob, image, or list of images (.txt, .csv, .parquet)
    output: str  # folder or bucket prefix
    more_inputs: tuple[str, ...] = ()  # further ones; an image that two name is segmented twice
    where: str | None = None  # SQL: of the images listed, only those that it fits
    sample: int | None = None  # of these only so many, drawn uniformly
    sample_seed: int = 0
    checkpoint: str | None = None  # exactly one of this
    preset: str | None = None  # and this
    base: str | None = None  # of a trained checkpoint, where the file it was trained on has moved
    classes: str | None = None  # class table of a preset; None: idd
    seed: int = 0  # of a preset's random weights
    image_size: int | None = None  # pixels of the model's square; None: the model's own
    windows: Windows | None = None  # None: the whole image, as one square
    dtype: str = "auto"  # auto: bfloat16 on GPUs and on CPUs that multiply it, else float32
    compile: bool = False  # through torch.compile: the first image takes longer, all others less
    batch_size: int = 8  # images a forward
    actors: int | None = (
        None  # processes that hold a model; None: one a GPU, or one where there is none
    )
    threads: int = 8  # downloads at a time in one fetching task: they wait for the network
    max_pixels: int = 100_000_000  # larger images become error rows; 12,000 x 8,000 fit
    max_bytes: int = 200_000_000  # larger files are refused before they are read
    image_timeout: float = 300.0  # seconds to decode an image, and to segment it; then it is ended
    max_error_rate: float = 0.5  # a larger share of error rows makes the exit status 1
    outage_patience: float = 600  # seconds that a run waits for a store that is out
    rows_per_chunk: int | None = None  # images a unit of work; None: 64, fewer for a small run
    rows_per_file: int = 4096  # of images/*.parquet: about 130 MB of 1080p street masks
    endpoint_url: str | None = None  # of S3-compatible storage
    restart: bool = False  # throw the output's earlier results away

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if (self.checkpoint is None) == (self.preset is None):
            yield "give either --checkpoint FILE or --preset NAME (random weights)"
        if self.checkpoint is not None and self.classes is not None:
            yield f"--classes {self.classes} goes with --preset: a checkpoint has a table of its own"
        if self.base is not None and self.checkpoint is None:
            yield f"--base {self.base} goes with the --checkpoint that was trained on it"
        if self.dtype not in DTYPES:
            yield f"--dtype {self.dtype}: there are {', '.join(DTYPES)}"
        if self.image_size is not None and (self.image_size < 32 or self.image_size % 32):
            yield f"--image-size {self.image_size}: a positive multiple of 32 is needed"
        if self.image_size is not None and self.windows is not None:
            yield f"--image-size {self.image_size} is of whole images: leave it out with --window"
        if not self.outage_patience >= 0:
            yield f"--outage-patience {self.outage_patience}: seconds, 0 or more, are needed"
        if not self.image_timeout > 0:
            yield f"--image-timeout {self.image_timeout}: a number of seconds over 0 is needed"
        if not 0 <= self.max_error_rate <= 1:
            yield f"--max-error-rate {self.max_error_rate}: a share from 0 to 1 is needed"
        counts = (
            "sample",
            "batch_size",
            "actors",
            "threads",
            "max_pixels",
            "max_bytes",
            "rows_per_chunk",
        )
        for name in (*counts, "rows_per_file"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"--{name.replace('_', '-')} {value}: at least 1 is needed"
