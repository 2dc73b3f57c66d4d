"""The three stages of a run, from a chunk of the manifest to a file of rows.

Each is a small callable on Arrow tables that runs without Ray. Between stages images and masks travel
as uint8 bytes, a row each; a row that has an `error_kind` passes through to the end.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dinoidd.data.image import decode_image
from dinoidd.data.manifest import read_rows
from dinoidd.errors import ImageError, StorageError
from dinoidd.inference.predictor import Prediction, Predictor
from dinoidd.inference.source import ModelSource
from dinoidd.segment.chunk_file import write_chunk
from dinoidd.segment.layout import Layout
from dinoidd.segment.tally import Tally
from dinoidd.storage import ObjectReader, StorageOptions, Store

_READ = pa.schema(
    [
        ("image_id", pa.int64()),
        ("uri", pa.string()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("note", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bytes", pa.int64()),
        ("fetch_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
        ("image", pa.large_binary()),  # square, RGB, uint8
    ]
)
_SEGMENTED = pa.schema(
    [
        *(f for f in _READ if f.name != "image"),
        pa.field("model_seconds", pa.float64()),
        pa.field("classes", pa.large_binary()),  # height x width, uint8
        pa.field("confidence", pa.float32()),
        pa.field("entropy", pa.float32()),
        pa.field("margin", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ReadImages:
    """Chunk number to rows: fetch, decode, and resize to the model's square."""

    manifest: Store
    manifest_sha256: str
    layout: Layout
    image_size: int
    threads: int
    max_pixels: int
    max_bytes: int
    storage: StorageOptions

    def __call__(self, chunk: int) -> pa.Table:
        rows = read_rows(
            self.manifest, *self.layout.chunk_range(chunk), self.manifest_sha256
        ).to_pylist()
        with ThreadPoolExecutor(self.threads) as pool:
            return pa.Table.from_pylist(list(pool.map(self._read, rows)), schema=_READ)

    def _read(self, row: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {"image_id": row["image_id"], "uri": row["uri"]}
        started = fetched = time.perf_counter()
        try:
            data = ObjectReader(self.storage).read(row["uri"], self.max_bytes)
            fetched = time.perf_counter()
            result["bytes"] = len(data)
            decoded = decode_image(data, max_pixels=self.max_pixels)
            result["height"], result["width"] = decoded.size
            result["note"] = decoded.note
            result["image"] = decoded.resized((self.image_size, self.image_size)).tobytes()
        except (StorageError, ImageError) as error:
            result |= {"error_kind": error.kind, "error": str(error)}
        except Exception as error:  # of a decoder's bug; one image must not stop the run
            what = f"{type(error).__name__} while it was decoded: {error}"
            result |= {"error_kind": "crashed", "error": what}
        ended = time.perf_counter()
        fetched = fetched if "bytes" in result else ended
        return result | {"fetch_seconds": fetched - started, "decode_seconds": ended - fetched}


class SegmentImages:
    """Rows with images to rows with classes; holds the model."""

    def __init__(
        self, source: ModelSource, image_size: int, batch_size: int, device: str, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self._predictor = Predictor(source.load(), device)
        self._image_size = image_size
        self._batch_size = batch_size

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.drop_columns(["image"]).to_pylist()
        images = table.column("image").combine_chunks()
        usable = [i for i, row in enumerate(rows) if row["error_kind"] is None]
        for start in range(0, len(usable), self._batch_size):
            batch = usable[start : start + self._batch_size]
            self._segment([rows[i] for i in batch], [images[i].as_buffer() for i in batch])
        return pa.Table.from_pylist(rows, schema=_SEGMENTED)

    def _segment(self, rows: list[dict[str, Any]], images: list[pa.Buffer]) -> None:
        started = time.perf_counter()
        shape = (self._image_size, self._image_size, 3)
        pixels = np.stack([np.frombuffer(image, np.uint8).reshape(shape) for image in images])
        sizes = [(row["height"], row["width"]) for row in rows]
        try:
            predictions = self._predictor.predict(pixels, sizes)
        except torch.OutOfMemoryError as error:
            self._segment_less(rows, images, error)
            return
        seconds = (time.perf_counter() - started) / len(rows)
        for row, prediction in zip(rows, predictions, strict=True):
            row |= {"model_seconds": seconds} | _answer(prediction)

    def _segment_less(
        self, rows: list[dict[str, Any]], images: list[pa.Buffer], error: torch.OutOfMemoryError
    ) -> None:
        """Half the batch at a time; an image that does not fit alone becomes an error row."""
        if self._predictor.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) == 1:
            reason = str(error).split(". ")[0]
            rows[0] |= {"error_kind": "out_of_memory", "error": f"alone in its batch: {reason}"}
            return
        half = len(rows) // 2
        self._segment(rows[:half], images[:half])
        self._segment(rows[half:], images[half:])


def _answer(prediction: Prediction) -> dict[str, Any]:
    certainty = prediction.certainty
    if not np.isfinite([certainty.confidence, certainty.entropy, certainty.margin]).all():
        what = "the model's output is not a number: use --dtype float32, or check the checkpoint"
        return {"error_kind": "not_finite", "error": what}
    return {
        "classes": prediction.classes.tobytes(),
        "confidence": certainty.confidence,
        "entropy": certainty.entropy,
        "margin": certainty.margin,
    }


@dataclass(frozen=True, kw_only=True)
class WriteRows:
    """Rows with classes to one file of the staging folder; what is handed on is its tally."""

    staging: Store
    layout: Layout
    schema: pa.Schema

    def __call__(self, table: pa.Table) -> Tally:
        first = table.column("image_id")[0].as_py()
        chunk = first // self.layout.rows_per_chunk
        expected = np.arange(*self.layout.chunk_range(chunk))
        ids = table.column("image_id").to_numpy()
        if not np.array_equal(ids, expected):
            raise AssertionError(
                f"chunk {chunk} came with rows {ids[:3]}..., not {expected[:3]}..."
            )
        return write_chunk(self.staging, self.layout.chunk_name(chunk), table, self.schema)
