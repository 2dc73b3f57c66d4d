"""The figures of a report, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

BINS = 200  # of a histogram over 0..1; drawn coarser


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """One class over all images that are ok."""

    name: str
    color: tuple[int, int, int]
    pixels: int
    images: int  # that hold the class
    largest: float  # share of the image that holds the most of it, 0..1


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Confidence, entropy or margin over all images that are ok; all values are 0..1."""

    name: str
    mean: float
    quantiles: tuple[float, float, float]  # 5 %, 50 %, 95 %
    bins: Sequence[int]  # BINS counts over 0..1


@dataclass(frozen=True, kw_only=True)
class ErrorKind:
    """Error rows of one kind, and the first of them as (uri, sentence)."""

    kind: str
    images: int
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The images of one folder, or of one stretch of time."""

    label: str
    images: int
    errors: int
    confidence: float | None  # mean; None where nothing is ok
    pixels: Sequence[int]  # by class
    start: float = 0.0  # of a stretch of time: seconds since 1970


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The largest folders by name; `total` counts the others too."""

    slices: Sequence[Slice]
    total: int


@dataclass(frozen=True, kw_only=True)
class Times:
    """Stretches of `seconds` each, as file names tell the time; empty ones are left out."""

    slices: Sequence[Slice]
    seconds: int
    images: int  # whose names tell a time


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything that comes from the columns alone, over all rows."""

    images: int
    ok: int
    errors: Sequence[ErrorKind]
    notes: Sequence[tuple[str, int]]
    sizes: Sequence[tuple[int, int, int]]  # width, height, images; the most frequent
    classes: Sequence[ClassShare]
    measures: Sequence[Measure]
    folders: Folders | None  # None where folders say nothing
    times: Times | None  # None where names tell no time
    root: str  # what all URIs share, up to a slash

    @property
    def pixels(self) -> int:
        """Of all masks."""
        return sum(c.pixels for c in self.classes)
