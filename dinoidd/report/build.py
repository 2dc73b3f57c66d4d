"""A run in, a page out."""

from dataclasses import dataclass

from dinoidd.errors import ConfigError
from dinoidd.output.query import open_query
from dinoidd.output.reader import RunReader
from dinoidd.report.collect import collect
from dinoidd.report.galleries import Galleries, choose_galleries
from dinoidd.report.page import render
from dinoidd.report.pictures import Picture, load_pictures

PAGE_LIMIT = 16_000_000  # bytes of a page's pictures; the rest of a page is below 1 MB


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """`sample`: images that galleries are ranked among, where a run has more; 0: all."""

    title: str | None = None  # None: the run's name
    sample: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample < 0:
            raise ConfigError(f"--sample {self.sample}: give 1 or more, or 0 for all")


def build_report(run: RunReader, options: ReportOptions) -> str:
    """The page about a run, finished or not: figures over all rows, pictures of some.

    Raises:
        OutputError: the run has no images yet, or a file of it is damaged.
        StorageError: the store cannot be read.
    """
    with open_query(run) as connection:
        figures = collect(connection, run.table)
        galleries = choose_galleries(
            connection, run.table, ok=figures.ok, sample=options.sample, seed=options.seed
        )
    pictures = _within_limit(run, galleries)
    title = options.title or f"Segmentation of {run.name}"
    return render(run, figures, galleries, pictures, title=title)


def _within_limit(run: RunReader, galleries: Galleries) -> dict[int, Picture]:
    """The pictures in the order of the galleries, as long as the page has room for them."""
    uses = [pick.image_id for gallery in galleries.all for pick in gallery.picks]
    pictures = dict(load_pictures(run, uses))
    room, kept = PAGE_LIMIT, {}
    for image_id in dict.fromkeys(uses):
        room -= pictures[image_id].bytes * uses.count(image_id)
        if room < 0:
            break
        kept[image_id] = pictures[image_id]
    return kept
