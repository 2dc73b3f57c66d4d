"""The counts of every frame in one Parquet file, so that runs are compared without their masks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.errors import OutputError
from dinoidd.evaluation.counting import FrameCounts
from dinoidd.evaluation.frames import Frame

# cells: indices into the flattened (K + 1)^2 confusion matrix that are not zero, rows ground truth;
# pixels: the counts there; boundary: K times intersection, ground truth, prediction.
SCHEMA = pa.schema(
    [
        pa.field("drive", pa.string(), nullable=False),
        pa.field("frame", pa.string(), nullable=False),
        pa.field("cells", pa.list_(pa.uint32()), nullable=False),
        pa.field("pixels", pa.list_(pa.int64()), nullable=False),
        pa.field("boundary", pa.list_(pa.int64()), nullable=False),
    ]
)
_ROWS_PER_GROUP = 256


class CountsWriter:
    """Writes frames as they come, a row group at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._waiting: list[FrameCounts] = []

    def add(self, frames: Iterable[FrameCounts]) -> None:
        self._waiting.extend(frames)
        if len(self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = [
            [counts.frame.drive for counts in self._waiting],
            [counts.frame.name for counts in self._waiting],
            [counts.cells for counts in self._waiting],
            [counts.pixels for counts in self._waiting],
            [counts.boundary.ravel() for counts in self._waiting],
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        self._waiting.clear()


def read_counts(source: Path | pa.NativeFile, classes: int) -> Iterator[FrameCounts]:
    """The frames of a counts file, a row group at a time.

    Raises:
        OutputError: it is damaged, or of another number of classes.
    """
    try:
        with pq.ParquetFile(source) as file:
            for batch in file.iter_batches(_ROWS_PER_GROUP):
                yield from (_frame_counts(row, classes) for row in _rows(batch))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise OutputError(f"the counts in {source} cannot be read: {reason}") from error


def dense(counts: FrameCounts, classes: int) -> np.ndarray:
    """The frame's confusion matrix, int64 [K + 1, K + 1]."""
    matrix = np.zeros((classes + 1) ** 2, np.int64)
    matrix[counts.cells] = counts.pixels
    return matrix.reshape(classes + 1, classes + 1)


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    drives, names = batch.column("drive").to_pylist(), batch.column("frame").to_pylist()
    lists = [batch.column(name) for name in ("cells", "pixels", "boundary")]
    for index, (drive, name) in enumerate(zip(drives, names, strict=True)):
        yield drive, name, *(column[index].values.to_numpy() for column in lists)


def _frame_counts(
    row: tuple[str, str, np.ndarray, np.ndarray, np.ndarray], classes: int
) -> FrameCounts:
    drive, name, cells, pixels, boundary = row
    return FrameCounts(
        frame=Frame(drive, name),
        cells=cells,
        pixels=pixels,
        boundary=boundary.reshape(classes, 3),
    )
