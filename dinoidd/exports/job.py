"""The export itself: rows in, one format's files out."""

import csv
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dinoidd.errors import ConfigError, ImageError
from dinoidd.exports.cityscapes import CityscapesFolder
from dinoidd.exports.coco import Coco
from dinoidd.exports.fiftyone import FiftyOne
from dinoidd.exports.folder import ExportFolder
from dinoidd.exports.format import Context, Format, Item
from dinoidd.exports.hugging_face import HuggingFace
from dinoidd.exports.names import Names
from dinoidd.exports.png_folder import PngFolder
from dinoidd.exports.selection import Selection, read_rows, select_images
from dinoidd.exports.threads import map_in_threads
from dinoidd.output.reader import RunReader
from dinoidd.storage import ObjectReader, shown

FORMATS: dict[str, type[Format[Any]]] = {
    "png": PngFolder,
    "coco": Coco,
    "cityscapes": CityscapesFolder,
    "hugging-face": HuggingFace,
    "fiftyone": FiftyOne,
}
INDEX = "index.csv"
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What became of every row of the run; the numbers add up to its rows."""

    format: str
    to: str
    exported: int
    not_matching: int
    errors: dict[str, int]  # rows without a mask, by error_kind
    damaged_masks: dict[str, int]  # by kind
    left_out: dict[str, int]  # originals that the format needs and that cannot be read, by kind
    without_image: dict[str, int]  # exported, but their original cannot be read, by kind
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every matching row with a mask was exported, with its image where that belongs."""
        return not (self.damaged_masks or self.left_out or self.without_image)


def export(
    run: RunReader,
    to: str,
    *,
    format: str,
    where: str = "true",
    workers: int | None = None,
    started: Callable[[int], Progress] = lambda total: lambda done: None,
) -> Exported:
    """Write the masks of a run as another tool wants them.

    Done again with the same arguments it completes the folder, or leaves it as it is.

    Args:
        run: finished or not; rows that come later are added by another export.
        to: a new or empty folder, or one of the same export; local or in object storage.
        format: one of FORMATS.
        where: an SQL condition on the rows of `images`.
        workers: threads; None: two a CPU core.
        started: told how many masks there are; what it returns is called with how many are done.

    Raises:
        ConfigError: an unknown format, a condition that is no SQL or that no row with a mask meets.
        OutputError: the folder holds something else.
        StorageError: a store cannot be read or written.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}: there are {sorted(FORMATS)}")
    selection = _selected(run, where)
    names = Names.of(run)
    folder = ExportFolder(to, run.options, _identity(run, format, where))
    with tempfile.TemporaryDirectory(prefix="dinoidd-export-") as scratch:
        context = Context(
            table=run.table,
            folder=folder,
            reader=ObjectReader(run.options),
            scratch=Path(scratch),
            root=names.root,
            about=_about(run),
        )
        writer = _Export(FORMATS[format](context), names, started(len(selection.ids)))
        writer.write(run, selection, workers or 2 * (os.cpu_count() or 1))
    result = writer.result(format, selection)
    folder.finish(asdict(result))
    return result


class _Export:
    """Rows through one format, with the index of what became which file."""

    def __init__(self, format: Format[Any], names: Names, progress: Progress) -> None:
        self.format, self._names, self._progress = format, names, progress
        self.exported = 0
        self.damaged: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def write(self, run: RunReader, selection: Selection, workers: int) -> None:
        context = self.format.context
        path = context.scratch / INDEX
        items = self._items(run, selection)
        with path.open("w", encoding="utf-8", newline="") as file:
            index = csv.writer(file, lineterminator="\n")
            index.writerow(["image_id", "uri", "file"])
            for done, (item, result) in enumerate(map_in_threads(self._prepare, items, workers), 1):
                if (name := self._add(item, result)) is not None:
                    index.writerow([item.row["image_id"], shown(item.row["uri"]), name])
                self._progress(done)
        self.format.finish()
        context.folder.upload(path, INDEX)

    def result(self, format: str, selection: Selection) -> Exported:
        """What was written, and what was not."""
        return Exported(
            format=format,
            to=self.format.context.folder.uri,
            exported=self.exported,
            not_matching=selection.not_matching,
            errors=selection.errors,
            damaged_masks=dict(self.damaged),
            left_out=dict(self.left_out),
            without_image=dict(self.format.missing_originals - self.left_out),
            notes=self.format.notes,
        )

    def _items(self, run: RunReader, selection: Selection) -> Iterator[Item]:
        for row in read_rows(run, selection.ids, self.format.columns):
            yield Item(row, self._names.name(row["image_id"], row["uri"]))

    def _prepare(self, item: Item) -> tuple[Item, Any]:
        try:
            return item, self.format.prepare(item)
        except ImageError as error:  # only a mask raises it here
            return item, error

    def _add(self, item: Item, result: Any) -> str | None:
        if isinstance(result, ImageError):
            self.damaged[result.kind] += 1
            return None
        name = self.format.add(item, result)
        if name is None:
            self.left_out[result] += 1
        else:
            self.exported += 1
        return name


def _selected(run: RunReader, where: str) -> Selection:
    selection = select_images(run, where)
    if not selection.ids.size:
        errors = sum(selection.errors.values())
        if not errors:
            raise ConfigError(
                f"--where {where!r} matches none of the {selection.not_matching:,} rows: there is "
                "nothing to export"
            )
        raise ConfigError(
            f"no mask to export: of {errors + selection.not_matching:,} rows {errors:,} match "
            f"--where {where!r}, and they are error rows"
        )
    return selection


def _identity(run: RunReader, format: str, where: str) -> dict[str, Any]:
    """What must be the same for two exports to go into one folder."""
    info = run.info or {}
    return {
        "made by": "dinoidd export",
        "run": info.get("run_id"),
        "model fingerprint": info.get("fingerprint"),
        "format": format,
        "where": where,
    }


def _about(run: RunReader) -> str:
    """One line; a run's name is its folder's, which may hold anything."""
    info = run.info or {}
    name = " ".join(run.name.split())
    return (
        f"Segmentation masks of {name}, made by dinoidd "
        f"(run {info.get('run_id', 'unknown')}, classes {run.table.name})"
    )
