"""Proof that a run is whole: one row an image, and rows, masks, files and counts that agree."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinoidd.classes import ClassTable
from dinoidd.data.manifest import FOLDER, read_manifest_info, read_rows
from dinoidd.errors import OutputError
from dinoidd.output.file_checks import FILE_METADATA, FileChecks
from dinoidd.output.findings import Findings
from dinoidd.output.mask_checks import COLUMNS as MASK_COLUMNS
from dinoidd.output.mask_checks import mask_problems
from dinoidd.output.reader import HALF_COMPACTED, Part, RunReader, UnreadableFileError
from dinoidd.output.row_checks import COLUMNS as ROW_COLUMNS
from dinoidd.output.row_checks import RowChecks
from dinoidd.storage import printable, public

SAMPLE = 200
_BATCH_ROWS = 4096
_SEED = 0

Progress = Callable[[list[Part]], Iterable[Part]]


@dataclass
class Report:
    """What a verification saw."""

    images: int = 0  # in the manifest
    rows: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # rows by kind
    masks: int = 0  # decoded
    findings: Findings = field(default_factory=Findings)


def verify(run: RunReader, *, sample: int | None = SAMPLE, progress: Progress = iter) -> Report:
    """Compare the manifest with the rows, and every row with itself, in flat memory.

    Args:
        sample: how many images, picked at random, have their masks decoded; None is all of them.
        progress: wraps the files that are gone through.

    Raises:
        OutputError: there is no finished manifest to compare with.
        StorageError: the store cannot be reached or does not let us in.
    """
    return _Verification(run, sample).run(progress)


class _Verification:
    def __init__(self, run: RunReader, sample: int | None) -> None:
        info = read_manifest_info(run.store.child(FOLDER))
        if info is None:
            raise OutputError(f"{run.uri} has no finished manifest to compare the rows with")
        self.reader, self.manifest = run, run.store.child(FOLDER)
        self.report = Report(images=info.rows)
        self.findings = self.report.findings
        self.files = FileChecks(self.findings)
        self.rows_of = np.zeros(info.rows, np.uint16)  # how many rows an image has
        self.sampled = _sampled(info.rows, sample)
        self.manifest_is_whole = self._check_manifest()

    def run(self, progress: Progress) -> Report:
        if not self.reader.finished:
            unfinished = "there is no _SUCCESS: the run is not finished"
            half = self.reader.half_compacted
            self.findings.add("unfinished", f"the output {HALF_COMPACTED}" if half else unfinished)
        with ThreadPoolExecutor() as pool:
            for part in progress(self.reader.parts):
                try:
                    with self.reader.open_part(part) as file:
                        self._check_file(part, file, pool)
                except UnreadableFileError as error:
                    self.findings.add("unreadable file", str(error))
        self._check_exactly_once()
        if self.reader.finished:
            self._check_run_info()
        return self.report

    def _check_manifest(self) -> bool:
        """Whether there are as many rows as the manifest says of itself."""
        rows = self.reader.manifest().count_rows()
        if rows != self.report.images:
            told = f"manifest.json says {self.report.images:,}"
            self.findings.add("manifest", f"the files of manifest/ hold {rows:,} rows, {told}")
        return rows == self.report.images

    def _check_file(self, part: Part, file: pq.ParquetFile, pool: ThreadPoolExecutor) -> None:
        table = self.files.check(part.name, file.schema_arrow)
        if table is None:
            return
        position, wanted = 0, []
        for batch in file.iter_batches(_BATCH_ROWS, columns=ROW_COLUMNS):
            rows = RowChecks(batch, table, self.findings)
            rows.run()
            self._count(batch, rows)
            known = (rows.ids >= 0) & (rows.ids < self.report.images)
            self._check_ids(part, rows.ids, known)
            if self.manifest_is_whole:
                self._check_uris(rows.ids, batch["uri"], known & part.holds(rows.ids))
            sampled = self.sampled[np.where(known, rows.ids, 0)] & known
            wanted.append(position + np.flatnonzero(sampled & rows.ok & rows.has_mask))
            position += len(batch)
        if wanted:
            self._check_masks(file, np.concatenate(wanted), table, pool)

    def _count(self, batch: pa.RecordBatch, rows: RowChecks) -> None:
        self.report.rows += len(batch)
        self.report.ok += int(rows.ok.sum())
        kinds = batch["error_kind"].filter(pa.array(rows.error)).value_counts()
        for kind in kinds.to_pylist():
            self.report.errors[kind["values"] or "unknown"] += kind["counts"]

    def _check_ids(self, part: Part, ids: np.ndarray, known: np.ndarray) -> None:
        np.add.at(self.rows_of, ids[known], 1)
        last = self.report.images - 1
        self.findings.add_rows(
            "unknown image",
            np.flatnonzero(~known),
            lambda i: f"{part.name} has a row of image {ids[i]}, but the manifest ends with {last}",
        )
        self.findings.add_rows(
            "row in the wrong file",
            np.flatnonzero(known & ~part.holds(ids)),
            lambda i: f"{part.name} has a row of image {ids[i]}, which belongs to another file",
        )

    def _check_uris(self, ids: np.ndarray, uris: pa.Array, known: np.ndarray) -> None:
        rows = np.flatnonzero(known)
        if not len(rows):
            return
        first, stop = int(ids[rows].min()), int(ids[rows].max()) + 1
        manifest = read_rows(self.manifest, first, stop)
        numbers = manifest["image_id"].to_numpy()
        self.findings.add_rows(
            "manifest",
            first + np.flatnonzero(numbers != np.arange(first, stop)),
            lambda i: f"row {i} of the manifest has image_id {numbers[i - first]}",
        )
        expected = manifest["uri"].take(pa.array(ids[rows] - first))
        other = pc.not_equal(uris.take(pa.array(rows)), expected).to_numpy()
        differs = other.copy()
        for at in np.flatnonzero(other):  # rows do not have what signs an address
            differs[at] = uris[rows[at]].as_py() != public(expected[at].as_py())
        self.findings.add_rows(
            "other URI",
            rows[differs],
            lambda i: (
                f"image {ids[i]} is {_told(uris[i])}, "
                f"in the manifest {_told(manifest['uri'][ids[i] - first])}"
            ),
        )

    def _check_masks(
        self, file: pq.ParquetFile, rows: np.ndarray, table: ClassTable, pool: ThreadPoolExecutor
    ) -> None:
        """Decode the masks of these rows; only the row groups that hold them are read."""
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        stops = np.cumsum(sizes)
        groups = np.searchsorted(stops, rows, side="right")
        for group in np.unique(groups):
            inside = rows[groups == group] - (stops[group] - sizes[group])
            masks = file.read_row_group(int(group), columns=MASK_COLUMNS).take(pa.array(inside))
            for problems in pool.map(
                lambda row: list(mask_problems(row, table)), masks.to_pylist()
            ):
                for kind, sentence in problems:
                    self.findings.add(kind, sentence)
            self.report.masks += len(inside)

    def _check_exactly_once(self) -> None:
        def missing(i: int) -> str:
            if not self.manifest_is_whole:
                return f"image {i} has no row"
            return f"image {i} has no row ({_told(read_rows(self.manifest, i, i + 1)['uri'][0])})"

        self.findings.add_rows("image without a row", np.flatnonzero(self.rows_of == 0), missing)
        self.findings.add_rows(
            "image with several rows",
            np.flatnonzero(self.rows_of > 1),
            lambda i: f"image {i} has {self.rows_of[i]} rows",
        )

    def _check_run_info(self) -> None:
        """The counts of run.json against the rows."""
        try:
            info = self.reader.info
        except OutputError as error:
            self.findings.add("run.json", str(error))
            return
        counts = {} if info is None else info.get("counts")
        if info is None or not isinstance(counts, dict):
            what = "is not there" if info is None else "has no counts"
            self.findings.add("run.json", f"run.json {what}")
            return
        for key, what in FILE_METADATA.items():
            if what in info and (wrong := self.files.others_than(key, str(info[what]))):
                self.findings.add(
                    "run.json", f"{wrong} is of another run: its {what} is not run.json's"
                )
        seen = {
            "images": self.report.rows,
            "ok": self.report.ok,
            "errors": dict(self.report.errors),
        }
        for name, value in seen.items():
            if self.reader.half_retried and name != "images":
                continue  # its end counts them
            if counts.get(name) != value:
                text = f"run.json counts {name} {counts.get(name)}, the rows {value}"
                self.findings.add("run.json", text)


def _told(uri: pa.Scalar) -> str:
    return printable(public(uri.as_py()))


def _sampled(images: int, sample: int | None) -> np.ndarray:
    """Which images have their masks decoded: bool, one an image."""
    if sample is None or sample >= images:
        return np.ones(images, bool)
    chosen = np.zeros(images, bool)
    chosen[np.random.default_rng(_SEED).choice(images, sample, replace=False)] = True
    return chosen
