"""What many images cost: a manifest of millions of rows, and a run that is long, on stand-ins.

Images are made up and the model sleeps, so what is measured is the engine and its driver: time and
memory before the first result, whether the end of a run is as fast as its beginning, and how actors
add up. As the model sleeps, more actors than cores are told apart too.
"""

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from dinoidd.bench.made_up import (
    CHUNK,
    ReadManifest,
    made_up_images,
    made_up_rows,
    sleeping_run,
)
from dinoidd.bench.memory import peak_bytes, resident_bytes
from dinoidd.classes import load_class_table
from dinoidd.data.manifest import FOLDER, write_manifest
from dinoidd.errors import ClusterError, ConfigError
from dinoidd.log import duration, logger
from dinoidd.output.schema import images_schema
from dinoidd.segment import cluster
from dinoidd.segment.cluster import ACTOR_CPUS
from dinoidd.segment.layout import Layout
from dinoidd.segment.merging import Merging, finished_chunks, finished_files
from dinoidd.storage import Store

ROWS_PER_FILE = 4_096
_PARTS = 10  # of the long run
_CHUNKS_A_TENTH = 3
_CHUNKS_PER_ACTOR = 24  # of the short runs that differ in their actors
_OTHER_CPUS = 2  # logical ones beside the actors
_ROWS_A_LINE = 1_024_000
_MEGA = 1e6


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """How much is measured."""

    rows: int = 10_000_000  # of the manifest
    images: int = 20_000  # of the long run
    actors: tuple[int, ...] = (1, 2, 4, 8)
    seconds_per_image: float = 0.015  # of the model that sleeps

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"--rows {self.rows} must be 1 or more")
        if not self.actors or min(self.actors) < 1:
            raise ConfigError(f"--actors {list(self.actors)} must be 1 or more each")
        most = max(self.actors)
        if self.images < (least := _PARTS * _CHUNKS_A_TENTH * CHUNK * most):
            raise ConfigError(
                f"--images {self.images} must be {least:,} or more for {most} actors: that is "
                f"{_CHUNKS_A_TENTH} chunks for each in a tenth of the run"
            )
        if self.seconds_per_image <= 0:
            raise ConfigError(f"--model-ms {1000 * self.seconds_per_image:g} must be more than 0")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What was measured; bytes are resident ones of the driver."""

    rows: int
    index_seconds: float
    index_peak_bytes: int
    chunks: int
    plan_seconds: float  # what is there, what is to be done, and the files that will be
    first_chunk_seconds: float  # from the start of the run, its processes included
    first_chunk_bytes: int
    images: int
    long_run_actors: int
    first_tenth: float  # images/s, without start-up
    last_tenth: float
    driver_bytes: dict[int, int]  # by chunks done
    by_actors: dict[int, float]  # images/s while all of them work

    @property
    def linear_share(self) -> dict[int, float]:
        """Of so many times what the fewest actors did, each."""
        fewest = min(self.by_actors)
        one = self.by_actors[fewest] / fewest
        return {count: speed / (count * one) for count, speed in self.by_actors.items()}

    def to_dict(self) -> dict[str, Any]:
        more = {
            "index_rows_per_second": self.rows / self.index_seconds,
            "last_over_first_tenth": self.last_tenth / self.first_tenth,
            "linear_share": self.linear_share,
        }
        return asdict(self) | more


def measure_scale(config: ScaleConfig, folder: str) -> Scale:
    """Measure in an empty folder, where a manifest of about 15 bytes a row is written.

    Raises:
        DinoiddError: the folder cannot be written, or no Ray starts.
    """
    store = Store.open(folder)
    index = _index(store.child(FOLDER), config.rows)
    cluster.connect(cpus=int(max(config.actors) * ACTOR_CPUS) + _OTHER_CPUS)
    start = _start(store, config)
    actors = sorted(config.actors)[len(config.actors) // 2]  # the engine is not at its limit
    logger.info(f"a run of {config.images:,} images on {actors} actors")
    long_run = tenths(_work(config.images // CHUNK, actors, config), actors)
    by_actors = {}
    for count in config.actors:
        finished = _work(_CHUNKS_PER_ACTOR * count, count, config)
        by_actors[count] = rate(finished, count)
        logger.info(f"{count} actors: {by_actors[count]:.1f} images/s")
    return Scale(**index, **start, **long_run, by_actors=by_actors)


def _index(folder: Store, rows: int) -> dict[str, Any]:
    logger.info(f"a manifest of {rows:,} rows")
    started = time.perf_counter()

    def tell(done: int) -> None:
        if done % _ROWS_A_LINE == 0:
            logger.info(f"{done:,} of {rows:,} rows")

    write_manifest(folder, made_up_images(rows), input_uri="made up", counts={}, progress=tell)
    seconds = time.perf_counter() - started
    return {"rows": rows, "index_seconds": seconds, "index_peak_bytes": peak_bytes()}


def _start(store: Store, config: ScaleConfig) -> dict[str, Any]:
    """What a run does before its first result, with rows of the manifest."""
    layout = Layout(rows=config.rows, rows_per_chunk=CHUNK, rows_per_file=ROWS_PER_FILE)
    started = time.perf_counter()
    staging, images = store.child("staging"), store.child("images")
    files, done = finished_files(layout, images, ""), finished_chunks(layout, staging)
    missing = set(range(layout.files)) - set(files)
    Merging(layout, missing, staging, images, images_schema(load_class_table("idd")))
    pending = [chunk for chunk in range(layout.chunks) if chunk not in done]
    plan_seconds = time.perf_counter() - started
    started = time.perf_counter()
    read = ReadManifest(manifest=store.child(FOLDER), layout=layout)
    with closing(sleeping_run(pending, read, 1, config.seconds_per_image)) as results:
        next(results)
        seconds, resident = time.perf_counter() - started, resident_bytes()
    logger.info(f"the first of {layout.chunks:,} chunks after {seconds:.1f} s")
    return {
        "chunks": layout.chunks,
        "plan_seconds": plan_seconds,
        "first_chunk_seconds": seconds,
        "first_chunk_bytes": resident,
    }


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A chunk that came back."""

    at: float  # when its actor was through, in seconds
    actor: int
    driver_bytes: int  # when it came


def _work(chunks: int, actors: int, config: ScaleConfig) -> list[Finished]:
    """Do chunks of made-up rows to the end, each exactly once; in the order in which they came."""
    finished, seen = [], set()
    for result in sleeping_run(range(chunks), made_up_rows, actors, config.seconds_per_image):
        seen.add(result.pop("chunk"))
        finished.append(Finished(**result, driver_bytes=resident_bytes()))
        if len(finished) % (chunks // _PARTS) == 0:
            memory = finished[-1].driver_bytes / _MEGA
            logger.info(f"{len(finished) * CHUNK:,} images, driver {memory:.0f} MB")
    if seen != set(range(chunks)) or len(finished) != chunks:
        raise AssertionError(f"{len(finished)} results for {len(seen)} of {chunks} chunks")
    return finished


def rate(finished: list[Finished], actors: int) -> float:
    """Images a second of all actors: each from its first chunk to its last, so that neither their start
    nor the end, when some have nothing left to do, counts.

    Raises:
        ClusterError: an actor did not do two chunks.
    """
    times: dict[int, list[float]] = {}
    for chunk in finished:
        times.setdefault(chunk.actor, []).append(chunk.at)
    worked = [sorted(of_one) for of_one in times.values() if len(of_one) > 1]
    if len(worked) != actors:
        raise ClusterError(
            f"{len(worked)} of {actors} actors did two chunks or more of {len(finished)}: the machine is "
            "too busy to tell, so close what else runs or raise --model-ms"
        )
    return sum((len(t) - 1) * CHUNK / (t[-1] - t[0]) for t in worked)


def _after_start(finished: list[Finished], actors: int) -> list[Finished]:
    """Without what was done before the last of the actors had begun."""
    begun: set[int] = set()
    for index, chunk in enumerate(finished):
        begun.add(chunk.actor)
        if len(begun) == actors:
            return finished[index:]
    raise ClusterError(f"only {len(begun)} of {actors} actors came to work")


def tenths(finished: list[Finished], actors: int) -> dict[str, Any]:
    """The rates of the first and last tenth after the start, and the driver's memory at eleven points."""
    by_time = _after_start(sorted(finished, key=lambda chunk: chunk.at), actors)
    tenth = len(by_time) // _PARTS
    points = [round(i * (len(finished) - 1) / _PARTS) for i in range(_PARTS + 1)]
    return {
        "images": len(finished) * CHUNK,
        "long_run_actors": actors,
        "first_tenth": rate(by_time[:tenth], actors),
        "last_tenth": rate(by_time[-tenth:], actors),
        "driver_bytes": {point + 1: finished[point].driver_bytes for point in points},
    }


def format_scale(scale: Scale) -> str:
    """A table for people."""
    memory = list(scale.driver_bytes.values())
    lines = [
        f"index            {scale.rows:,} rows in {duration(scale.index_seconds)}, "
        f"{scale.rows / scale.index_seconds:,.0f} rows/s, peak {scale.index_peak_bytes / _MEGA:,.0f} MB",
        f"planning         {scale.chunks:,} chunks in {scale.plan_seconds:.1f} s",
        f"first chunk      {scale.first_chunk_seconds:.1f} s after the start, driver "
        f"{scale.first_chunk_bytes / _MEGA:,.0f} MB",
        f"{scale.images:>9,} images {scale.first_tenth:,.1f} images/s in the first tenth, "
        f"{scale.last_tenth:,.1f} in the last ({scale.last_tenth / scale.first_tenth:.0%}), "
        f"{scale.long_run_actors} actors",
        f"driver memory    {memory[0] / _MEGA:,.0f} MB after the first chunk, "
        f"{memory[len(memory) // 2] / _MEGA:,.0f} in the middle, {memory[-1] / _MEGA:,.0f} at the end",
    ]
    for count, share in scale.linear_share.items():
        speed = scale.by_actors[count]
        lines.append(f"{count:>3} actors       {speed:8,.1f} images/s, {share:.1%} of linear")
    return "\n".join(lines)
