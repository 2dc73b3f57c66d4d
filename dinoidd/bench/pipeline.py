"""The whole job beside what it could be at best: the model alone, and a plain loop."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice

import pyarrow as pa

from dinoidd.bench.memory import peak_bytes
from dinoidd.bench.workers import WorkerPeaks
from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER, index_images
from dinoidd.errors import ConfigError
from dinoidd.inference.source import ModelSource
from dinoidd.log import logger
from dinoidd.output.schema import images_schema
from dinoidd.segment.layout import make_layout
from dinoidd.segment.run_record import read_record
from dinoidd.segment.stages import ReadImages, SegmentImages, WriteRows
from dinoidd.segment.summary import size_text
from dinoidd.storage import StorageOptions, Store

_KEPT = 4  # decoded chunks that the model alone goes round in
_ALONE = 4  # chunks for it, before and after the plain loop each: the machine's mood changes


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Images per second, and the seconds of all this machine's cores that an image took."""

    images_per_second: float
    core_seconds: float


@dataclass(frozen=True, kw_only=True)
class PipelineSpeed:
    """All with the same model, threads and pieces on the same images, one after the other."""

    images: int
    rows_per_chunk: int
    threads: int  # of torch
    cores: int  # of this machine
    model_alone: Rate  # decoded images to classes, nothing else
    plain_loop: Rate  # one process: read ahead in a thread, model, encode, write
    pipeline: float  # images/s of the Ray job after its start-up
    startup_seconds: float  # of the job: from its start to the first finished chunk
    stage_seconds: dict[str, float]  # of the job, summed over threads and processes
    object_store_bytes: int  # of the job, through Ray's object store
    peak_bytes: dict[
        str, int
    ]  # of the job's largest process of each kind; the driver's loop included

    @property
    def over_model_alone(self) -> float:
        return self.pipeline / self.model_alone.images_per_second

    @property
    def over_plain_loop(self) -> float:
        return self.pipeline / self.plain_loop.images_per_second

    @property
    def attainable(self) -> float:
        """The most that `over_model_alone` can be where everything shares this machine's cores."""
        needed = self.plain_loop.core_seconds * self.model_alone.images_per_second
        return min(1.0, self.cores / needed)

    @property
    def actor_busy(self) -> float:
        """Share of the time after the start-up in which the model's actor had a batch in work."""
        return self.pipeline * self.stage_seconds["model"] / self.images

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {
            "pipeline_over_model_alone": self.over_model_alone,
            "pipeline_over_plain_loop": self.over_plain_loop,
            "attainable_over_model_alone": self.attainable,
            "actor_busy": self.actor_busy,
        }


def measure_pipeline(
    config: SegmentConfig, source: ModelSource, *, device: str, threads: int
) -> PipelineSpeed:
    """Run the three in turn over `config.input`; `config.output` holds the job's rows afterwards.

    Args:
        source: of the model.
        threads: of torch, the same in all three.

    Raises:
        ConfigError: fewer images than two chunks, which leaves nothing to measure after start-up.
    """
    from dinoidd.segment.job import segment

    with tempfile.TemporaryDirectory(prefix="dinoidd-bench-") as folder:
        stages = _Stages(config, source, Store.open(folder), device, threads)
        layout = stages.layout
        logger.info(f"{layout.rows:,} images, {layout.chunks} chunks")
        before = stages.model_alone()
        loop = stages.plain_loop()
        alone = _mean(before, stages.model_alone())
        for name, rate in (("model alone", alone), ("plain loop", loop)):
            logger.info(f"{name} {rate.images_per_second:.1f} images/s")
    config = replace(config, rows_per_chunk=layout.rows_per_chunk, actors=1)
    with WorkerPeaks() as peaks:
        segment(config, device=device, source=source, threads=threads)
    record = read_record(
        Store.open(config.output, StorageOptions(endpoint_url=config.endpoint_url))
    )
    assert record is not None
    session = record.sessions[-1]
    return PipelineSpeed(
        images=layout.rows,
        rows_per_chunk=layout.rows_per_chunk,
        threads=threads,
        cores=os.cpu_count() or 1,
        model_alone=alone,
        plain_loop=loop,
        pipeline=session["steady_images_per_second"],
        startup_seconds=session["startup_seconds"],
        stage_seconds=session["stage_seconds"],
        object_store_bytes=session["object_store_bytes"],
        peak_bytes={"driver": peak_bytes()} | peaks.bytes,
    )


class _Stages:
    """The job's own stages, called without Ray."""

    def __init__(
        self, config: SegmentConfig, source: ModelSource, folder: Store, device: str, threads: int
    ) -> None:
        options = StorageOptions(endpoint_url=config.endpoint_url)
        model = source.describe()
        size = config.image_size or model.config.image_size
        manifest = index_images(config.input, folder, options)
        self.layout = make_layout(
            manifest.rows,
            batch_size=config.batch_size,
            actors=1,
            rows_per_chunk=config.rows_per_chunk,
            rows_per_file=config.rows_per_file,
        )
        if self.layout.chunks < 2:
            raise ConfigError(f"{manifest.rows} images are a single chunk: give more")
        self._read = ReadImages(
            manifest=folder.child(FOLDER),
            manifest_sha256=manifest.sha256,
            layout=self.layout,
            image_size=size,
            threads=config.threads,
            max_pixels=config.max_pixels,
            max_bytes=config.max_bytes,
            storage=options,
        )
        self._segment = SegmentImages(source, size, config.batch_size, device, threads)
        schema = images_schema(model.table)
        self._write = WriteRows(staging=folder.child("rows"), layout=self.layout, schema=schema)

    def model_alone(self) -> Rate:
        kept = [self._read(chunk) for chunk in range(min(_KEPT, self.layout.chunks))]
        self._segment(kept[0])  # the first forward makes tables and kernels
        clock = _Clock()
        for table in islice(cycle(kept), _ALONE):
            self._segment(table)
            clock.images += len(table)
        return clock.rate()

    def plain_loop(self) -> Rate:
        clock = _Clock()
        for table in self._read_ahead():
            self._write(self._segment(table))
            clock.images += len(table)
        return clock.rate()

    def _read_ahead(self) -> Iterator[pa.Table]:
        """The next chunk is read while this one is worked on."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._read, 0)
            for chunk in range(1, self.layout.chunks + 1):
                table = coming.result()
                if chunk < self.layout.chunks:
                    coming = pool.submit(self._read, chunk)
                yield table


class _Clock:
    """Times this process from now on."""

    def __init__(self) -> None:
        self.images = 0
        self._started, self._worked = time.perf_counter(), time.process_time()

    def rate(self) -> Rate:
        seconds = time.perf_counter() - self._started
        worked = time.process_time() - self._worked
        return Rate(
            images_per_second=self.images / seconds, core_seconds=worked / max(self.images, 1)
        )


def _mean(one: Rate, other: Rate) -> Rate:
    """Of equally many images each."""
    rates = one.images_per_second, other.images_per_second
    return Rate(
        images_per_second=2 / (1 / rates[0] + 1 / rates[1]),
        core_seconds=(one.core_seconds + other.core_seconds) / 2,
    )


def format_speed(speed: PipelineSpeed) -> str:
    """A table, with the ratios that do not depend on this machine's mood."""
    whole = sum(speed.stage_seconds.values()) or 1.0
    shares = ", ".join(
        f"{stage} {1000 * seconds / speed.images:.1f} ms ({seconds / whole:.0%})"
        for stage, seconds in speed.stage_seconds.items()
    )
    alone, loop = speed.model_alone, speed.plain_loop
    moved = size_text(speed.object_store_bytes / speed.images)
    peaks = ", ".join(f"{kind} {size_text(peak)}" for kind, peak in speed.peak_bytes.items())
    return "\n".join(
        [
            f"images          {speed.images:,} in pieces of {speed.rows_per_chunk}; threads of torch: "
            f"{speed.threads}, on {speed.cores} cores",
            f"model alone     {alone.images_per_second:8.1f} images/s",
            f"plain loop      {loop.images_per_second:8.1f} images/s (one process, reads ahead)",
            f"pipeline        {speed.pipeline:8.1f} images/s (Ray, after {speed.startup_seconds:.0f} s "
            "of start-up)",
            f"pipeline over model alone  {speed.over_model_alone:.2f} (the cores leave room for "
            f"{speed.attainable:.2f}: an image takes {1000 * loop.core_seconds:.1f} ms of them in all, "
            f"{1000 * alone.core_seconds:.1f} ms the model alone)",
            f"pipeline over plain loop   {speed.over_plain_loop:.2f}",
            f"the model's actor busy     {speed.actor_busy:.0%}",
            f"an image's time, by stage  {shares}",
            f"through the object store   {moved} an image, {size_text(speed.object_store_bytes)} in all",
            f"peak memory of a process   {peaks}",
        ]
    )
