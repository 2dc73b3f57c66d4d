"""The whole job beside what it could be at best: the model alone, and a plain loop."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa

from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER, index_images
from dinoidd.errors import ConfigError
from dinoidd.inference.source import ModelSource
from dinoidd.log import logger
from dinoidd.output.schema import images_schema
from dinoidd.segment.layout import Layout
from dinoidd.segment.stages import ReadImages, SegmentImages, WriteRows
from dinoidd.storage import StorageOptions, Store


@dataclass(frozen=True, kw_only=True)
class PipelineSpeed:
    """Images per second, all with the same model on the same images in one process's lifetime."""

    images: int
    model_alone: float  # decoded images to classes, nothing else
    plain_loop: float  # one process: read ahead in a thread, model, encode, write
    pipeline: float  # the Ray job after its start-up
    startup_seconds: float  # of the job: from its start to the first finished chunk
    stage_seconds: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        ratios = {
            "pipeline_over_model_alone": self.pipeline / self.model_alone,
            "pipeline_over_plain_loop": self.pipeline / self.plain_loop,
        }
        return asdict(self) | ratios


def measure_pipeline(config: SegmentConfig, *, device: str, threads: int) -> PipelineSpeed:
    """Run the three in turn over `config.input`; `config.output` holds the job's rows afterwards.

    Args:
        threads: of torch, the same in all three.

    Raises:
        ConfigError: fewer images than two chunks, which leaves nothing to measure after start-up.
    """
    from dinoidd.segment.job import segment

    with tempfile.TemporaryDirectory(prefix="dinoidd-bench-") as folder:
        stages = _Stages(config, Store.open(folder), device, threads)
        logger.info(f"{stages.layout.rows:,} images, {stages.layout.chunks} chunks")
        model_alone = stages.model_alone()
        logger.info(f"model alone {model_alone:.1f} images/s")
        plain_loop = stages.plain_loop()
        logger.info(f"plain loop {plain_loop:.1f} images/s")
    summary = segment(config, device=device).summary
    return PipelineSpeed(
        images=stages.layout.rows,
        model_alone=model_alone,
        plain_loop=plain_loop,
        pipeline=summary["session"]["steady_images_per_second"],
        startup_seconds=summary["session"]["startup_seconds"],
        stage_seconds=summary["stage_seconds"],
    )


class _Stages:
    """The job's own stages, called without Ray."""

    def __init__(self, config: SegmentConfig, folder: Store, device: str, threads: int) -> None:
        options = StorageOptions(endpoint_url=config.endpoint_url)
        source = ModelSource(
            checkpoint=config.checkpoint,
            preset=config.preset,
            seed=config.seed,
            dtype=config.dtype,
            storage=options,
        )
        model = source.describe()
        size = config.image_size or model.config.image_size
        manifest = index_images(config.input, folder, options)
        rows = manifest.rows
        chunk = config.rows_per_chunk or 4 * config.batch_size
        if rows < 2 * chunk:
            raise ConfigError(f"{rows} images are fewer than two chunks of {chunk}: give more")
        self.layout = Layout(rows=rows, rows_per_chunk=chunk, rows_per_file=chunk)
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

    def model_alone(self) -> float:
        chunk = self._read(0)
        self._segment(chunk)  # the first forward makes tables and kernels
        repeats = max(1, min(self.layout.chunks, 4))
        return _rate(lambda: [self._segment(chunk) for _ in range(repeats)], repeats * len(chunk))

    def plain_loop(self) -> float:
        def work() -> None:
            for table in self._read_ahead():
                self._write(self._segment(table))

        return _rate(work, self.layout.rows)

    def _read_ahead(self) -> Iterator[pa.Table]:
        """The next chunk is read while this one is worked on."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._read, 0)
            for chunk in range(1, self.layout.chunks + 1):
                table = coming.result()
                if chunk < self.layout.chunks:
                    coming = pool.submit(self._read, chunk)
                yield table


def _rate(work: Callable[[], object], images: int) -> float:
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


def format_speed(speed: PipelineSpeed) -> str:
    """A table, with the ratios that do not depend on this machine's mood."""
    ratios = speed.to_dict()
    whole = sum(speed.stage_seconds.values()) or 1.0
    shares = ", ".join(f"{k} {v / whole:.0%}" for k, v in speed.stage_seconds.items())
    return "\n".join(
        [
            f"model alone     {speed.model_alone:8.1f} images/s",
            f"plain loop      {speed.plain_loop:8.1f} images/s (one process, reads ahead)",
            f"pipeline        {speed.pipeline:8.1f} images/s (Ray, after {speed.startup_seconds:.0f} s "
            "of start-up)",
            f"pipeline over model alone  {ratios['pipeline_over_model_alone']:.2f}",
            f"pipeline over plain loop   {ratios['pipeline_over_plain_loop']:.2f}",
            f"where the job's time went: {shares}",
        ]
    )
