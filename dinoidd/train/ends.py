"""The first and the last stage of an extraction: images are read, and what was seen in them is written.

Their processes need no torch, which takes seconds to import and some hundred MB.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinoidd.storage import Store
from dinoidd.train.rows import Pieces
from dinoidd.training.cache_file import errors_of, write_cache_file
from dinoidd.training.key_bytes import key_bytes
from dinoidd.training.reading import ExampleReader, SampleError
from dinoidd.training.samples import Samples

_READ = pa.schema(
    [
        ("piece", pa.int64()),
        ("row", pa.int64()),
        ("key", pa.binary()),  # UTF-8 but for what is none in file names
        ("view", pa.int32()),
        ("error", pa.binary()),
        ("image", pa.large_binary()),  # square, RGB, uint8
        ("label", pa.large_binary()),  # square, class ids, uint8
    ]
)


@dataclass(frozen=True, kw_only=True)
class ReadExamples:
    """A piece's number to its rows with images."""

    samples: Samples
    readers: Mapping[str, ExampleReader]  # by kind
    pieces: Pieces
    threads: int

    def __call__(self, piece: int) -> pa.Table:
        kind, _ = self.pieces.of(piece)
        with ThreadPoolExecutor(self.threads) as pool:
            rows = list(pool.map(lambda row: self._read(kind, row), self.pieces.rows_of(piece)))
        return pa.Table.from_pylist([{"piece": piece} | row for row in rows], schema=_READ)

    def _read(self, kind: str, row: int) -> dict[str, Any]:
        index, view = divmod(row, self.pieces.rows[kind].views)
        sample = getattr(self.samples, kind)[index]
        result: dict[str, Any] = {"row": row, "key": key_bytes(sample.key), "view": view}
        try:
            example = self.readers[kind].read(sample, view)
        except SampleError as error:
            return result | {"error": key_bytes(str(error))}
        return result | {
            "image": example.image_SS3.tobytes(),
            "label": example.label_SS.tobytes(),
        }


@dataclass(frozen=True, kw_only=True)
class WriteObservations:
    """Rows of the cache to their file; what is handed on is what to tell of it."""

    cache: Store
    pieces: Pieces

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        piece = table.column("piece")[0].as_py()
        expected, rows = self.pieces.rows_of(piece), table.drop_columns(["piece"])
        if len(rows) != len(expected):
            raise AssertionError(f"piece {piece} came with {len(rows)} of {len(expected)} rows")
        folder, name = self.pieces.name_of(piece)
        size = write_cache_file(self.cache.child(folder), name, rows)
        return {"piece": piece, "bytes": size, "errors": errors_of(rows)}
