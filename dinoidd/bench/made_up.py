"""Made-up images and a model that sleeps: what is left of a run is the engine."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dinoidd.data.manifest import read_rows
from dinoidd.segment.cluster import Placement
from dinoidd.segment.layout import Layout
from dinoidd.segment.pipeline import run_stages
from dinoidd.storage import ObjectInfo, Store

CHUNK = 64  # rows, as in a run of many images


def made_up_images(rows: int) -> Iterator[ObjectInfo]:
    """What a listing of a bucket would say, with names as long as real ones."""
    for i in range(rows):
        uri = f"s3://drives/2026-01/vehicle-{i // 100_000:04d}/{i:012d}_leftImg8bit.jpg"
        yield ObjectInfo(uri=uri, size=400_000 + i % 100_000, etag=f"{i * 2654435761:032x}")


@dataclass(frozen=True, kw_only=True)
class ReadManifest:
    """Chunk number to its rows of a manifest; no image is read."""

    manifest: Store
    layout: Layout

    def __call__(self, chunk: int) -> pa.Table:
        rows = read_rows(self.manifest, *self.layout.chunk_range(chunk))
        return rows.append_column("chunk", pa.repeat(chunk, len(rows)))


def made_up_rows(chunk: int) -> pa.Table:
    """A chunk of a run whose images are nowhere."""
    return pa.table({"chunk": pa.repeat(chunk, CHUNK)})


class SleepingModel:
    """Takes a fixed time for each row, and says which process it is and when it was through."""

    def __init__(self, seconds_per_image: float) -> None:
        self._seconds = seconds_per_image

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(self._seconds * len(table))
        said = {"actor": os.getpid(), "at": time.time()}
        for name, value in said.items():
            table = table.append_column(name, pa.repeat(value, len(table)))
        return table


def first_row(table: pa.Table) -> dict[str, Any]:
    """The last stage: nothing is written."""
    return {name: table.column(name)[0].as_py() for name in ("chunk", "actor", "at")}


def sleeping_run(
    chunks: Sequence[int], read: Callable[[int], pa.Table], actors: int, seconds_per_image: float
) -> Generator[dict[str, Any], None, None]:
    """A run of those: `chunk`, its `actor`, and the time `at` which that was through."""
    yield from run_stages(
        chunks,
        read=read,
        model=SleepingModel,
        arguments={"seconds_per_image": seconds_per_image},
        write=first_row,
        placement=Placement(device="cpu", actors=actors, threads=1),
    )
