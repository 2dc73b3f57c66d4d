"""The three stages of a run, from a chunk of the manifest to a file of rows.

Each is a small callable on Arrow tables that runs without Ray. Between stages images travel as uint8
bytes and masks packed, a row each; a row that has an `error_kind` passes through to the end.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dinoidd.config import Windows
from dinoidd.data.image import decode_image
from dinoidd.data.manifest import read_rows
from dinoidd.errors import ClusterError, ImageError, OutageError, StorageError
from dinoidd.inference.device_errors import is_lost, is_short_of_memory
from dinoidd.inference.dtype import check_gpu
from dinoidd.inference.predictor import Prediction, Scorer
from dinoidd.inference.source import ModelSource
from dinoidd.inference.windows import Framing, packed
from dinoidd.segment.chunk_file import write_chunk
from dinoidd.segment.layout import Layout
from dinoidd.segment.metering import Metering, NoMetering
from dinoidd.segment.packed_classes import pack_classes
from dinoidd.segment.source_check import check_source
from dinoidd.segment.tally import Tally
from dinoidd.segment.tries import Attempt, Counting, Tries, attempt, loading
from dinoidd.storage import STEADY, ObjectInfo, ObjectReader, StorageOptions, Store, public

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
        ("image", pa.large_binary()),  # its frames (see `Framing`), RGB, uint8
    ]
)
_SEGMENTED = pa.schema(
    [
        *(f for f in _READ if f.name != "image"),
        pa.field("model_seconds", pa.float64()),
        pa.field("classes", pa.large_binary()),  # see `pack_classes`
        pa.field("confidence", pa.float32()),
        pa.field("entropy", pa.float32()),
        pa.field("margin", pa.float32()),
    ]
)


_LARGE_FILE = 10_000_000  # bytes; its pixels may be thirty times as many
_large_file = threading.Lock()


def _turn(data: bytes) -> AbstractContextManager[object]:
    """Large images are decoded one at a time: as many as there are threads would fill the memory."""
    return _large_file if len(data) > _LARGE_FILE else nullcontext()


@dataclass(frozen=True, kw_only=True)
class ReadImages:
    """Chunk number to rows: fetch, decode, and resize to the model's square, or for its windows."""

    manifest: Store
    manifest_sha256: str
    layout: Layout
    image_size: int
    threads: int
    max_pixels: int
    max_bytes: int
    storage: StorageOptions
    windows: Windows | None = None
    image_timeout: float | None = None  # seconds to decode an image, then its process ends
    witnesses: tuple[str, ...] = ()  # addresses that could be had before, see `check_source`
    tries: Counting = field(default_factory=Tries)

    def __call__(self, chunk: int) -> pa.Table:
        with attempt(self.tries, "decoded", chunk) as tried:
            rows = self._manifest_rows(*self.layout.chunk_range(chunk))
            with ThreadPoolExecutor(1 if tried.alone else self.threads) as pool:
                read = list(pool.map(lambda row: self._read(row, tried), rows))
            tried.touch(None)
            kinds = (result.get("error_kind") for result in read)
            pairs = zip((row["uri"] for row in rows), kinds, strict=True)
            check_source(list(pairs), self.witnesses, self.storage)
            return pa.Table.from_pylist(read, schema=_READ)

    def _manifest_rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        return read_rows(self.manifest, start, stop, self.manifest_sha256).to_pylist()

    def _read(self, row: dict[str, Any], tried: Attempt) -> dict[str, Any]:
        result: dict[str, Any] = {"image_id": row["image_id"], "uri": public(row["uri"])}
        if given_up := tried.touch(row["image_id"]):
            return result | given_up
        started = fetched = time.perf_counter()
        try:
            indexed = ObjectInfo(uri=row["uri"], size=row["size"], etag=row["etag"])
            data = ObjectReader(self.storage, STEADY).read(row["uri"], self.max_bytes, indexed)
            fetched = time.perf_counter()
            result["bytes"] = len(data)
            tried.touch(row["image_id"])  # the download has time limits of its own
            with _turn(data), tried.ends_within(self.image_timeout):
                result |= self._decode(data)
        except OutageError:  # the store's failure is no image's
            raise
        except (StorageError, ImageError) as error:
            result |= {"error_kind": error.kind, "error": str(error)}
        except Exception as error:  # of a decoder's bug; one image must not stop the run
            what = f"{type(error).__name__} while it was decoded: {error}"
            result |= {"error_kind": "crashed", "error": what}
        ended = time.perf_counter()
        fetched = fetched if "bytes" in result else ended
        return result | {"fetch_seconds": fetched - started, "decode_seconds": ended - fetched}

    def _decode(self, data: bytes) -> dict[str, Any]:
        decoded = decode_image(data, max_pixels=self.max_pixels)
        height, width = decoded.size
        framing = Framing(image_size=self.image_size, windows=self.windows)
        pixels = packed(framing.frames(decoded, self.max_pixels))
        return {"height": height, "width": width, "note": decoded.note, "image": pixels}


class SegmentImages:
    """Rows with images to rows with classes; holds the model.

    Args:
        batch_size: images at a time; with windows, windows a forward too.
        image_timeout: seconds to segment an image, for a batch as many times that; then its process
            ends. None: no limit.
        compiled: through `torch.compile`.

    Raises:
        ClusterError: loading the model kills its process, or it cannot segment a blank image.
    """

    def __init__(
        self,
        source: ModelSource,
        image_size: int,
        batch_size: int,
        device: str,
        threads: int,
        image_timeout: float | None = None,
        tries: Counting | None = None,
        windows: Windows | None = None,
        compiled: bool = False,
        metering: Metering | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._framing = Framing(image_size=image_size, windows=windows)
        self._batch_size = batch_size
        self._image_timeout = image_timeout
        self._compiled = compiled
        self._tries = tries or Tries()
        self._metering = metering or NoMetering()
        with loading(self._tries):
            self._predictor = self._load(source, device)
        self._idle_since = time.perf_counter()

    def _load(self, source: ModelSource, device: str) -> Scorer:
        """A predictor that works: what it does later at an image is then that image's fault."""
        model, framing = source.load(), self._framing
        size = framing.image_size if framing.windows is None else framing.windows.size
        blank = [np.zeros((*shape, 3), np.uint8) for shape in framing.shapes((size, size))]
        try:
            check_gpu(source.dtype, device)
            predictor = source.scorer(
                model, device, framing.windows, self._batch_size, compiled=self._compiled
            )
            predictor.predict(framing.batch([blank]), [(size, size)])
        except Exception as error:
            raise ClusterError(
                f"the model cannot segment a blank image of {size} x {size} pixels on {device}: "
                f"{_in_short(error)}"
            ) from error
        return predictor

    def __call__(self, table: pa.Table) -> pa.Table:
        self._metering.waited(time.perf_counter() - self._idle_since)
        try:
            return self._segmented(table)
        finally:
            if self._predictor.device.type == "cuda":
                self._metering.took_memory(torch.cuda.max_memory_reserved())
            self._idle_since = time.perf_counter()

    def _segmented(self, table: pa.Table) -> pa.Table:
        first = table.column("image_id")[0].as_py()
        with attempt(self._tries, "segmented", first) as tried:
            rows = table.drop_columns(["image"]).to_pylist()
            images = table.column("image").combine_chunks()
            usable = [i for i, row in enumerate(rows) if row["error_kind"] is None]
            size = 1 if tried.alone else self._batch_size
            for start in range(0, len(usable), size):
                batch = usable[start : start + size]
                if given_up := tried.touch(rows[batch[0]]["image_id"]):
                    rows[batch[0]] |= given_up
                    continue
                pixels = [images[i].as_buffer() for i in batch]
                self._segment([rows[i] for i in batch], pixels, tried)
            tried.touch(None)
            return pa.Table.from_pylist(rows, schema=_SEGMENTED)

    def _segment(self, rows: list[dict[str, Any]], images: list[pa.Buffer], tried: Attempt) -> None:
        """Add the answers to the rows. A batch that fails goes by halves; an image that fails alone
        becomes an error row. Where only memory was short, and for no single image, batches stay smaller.
        """
        failure = self._predict(rows, images, tried)
        if not failure:
            return
        # Only now: within a handler, the error's traceback holds the memory of the failed forward.
        if self._predictor.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) == 1:
            rows[0] |= failure
            return
        half = len(rows) // 2
        self._segment(rows[:half], images[:half], tried)
        self._segment(rows[half:], images[half:], tried)
        short = failure["error_kind"] == "out_of_memory"
        if short and all(row["error_kind"] != "out_of_memory" for row in rows):
            self._batch_size = min(self._batch_size, half)

    def _predict(
        self, rows: list[dict[str, Any]], images: list[pa.Buffer], tried: Attempt
    ) -> dict[str, str]:
        """Add the answers to the rows, or say why there are none."""
        started = time.perf_counter()
        sizes = [(row["height"], row["width"]) for row in rows]
        limit = None if self._image_timeout is None else self._image_timeout * len(rows)
        try:
            pairs = zip(images, sizes, strict=True)
            batch = self._framing.batch(
                [self._framing.unpacked(memoryview(i), s) for i, s in pairs]
            )
            with tried.ends_within(limit):
                predictions = self._predictor.predict(batch, sizes)
        except Exception as error:
            return self._failure(error, tried)
        self._metering.forwarded(len(rows))
        seconds = (time.perf_counter() - started) / len(rows)
        for row, prediction in zip(rows, predictions, strict=True):
            row |= {"model_seconds": seconds} | _answer(prediction)
        return {}

    def _failure(self, error: Exception, tried: Attempt) -> dict[str, str]:
        """What an image's row says if it was alone in its batch."""
        if is_lost(self._predictor.device, error):
            tried.abandon(error)
        if is_short_of_memory(error):
            what = _first_line(error).split(". ")[0]
            return {"error_kind": "out_of_memory", "error": f"alone in its batch: {what}"}
        what = f"alone in its batch, the model raised {_in_short(error)}"
        return {"error_kind": "crashed", "error": what}


def _in_short(error: Exception) -> str:
    """One line with the kind of the error."""
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    """torch's errors go on with advice to programmers."""
    return (str(error).strip().splitlines() or ["without a word"])[0]


def _answer(prediction: Prediction) -> dict[str, Any]:
    certainty = prediction.certainty
    if not np.isfinite([certainty.confidence, certainty.entropy, certainty.margin]).all():
        what = "the model's output is not a number: use --dtype float32, or check the checkpoint"
        return {"error_kind": "not_finite", "error": what}
    return {
        "classes": pack_classes(prediction.classes),
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
