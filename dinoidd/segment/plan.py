"""What a run will take, reckoned from a sample that went through the job's own stages."""

import math
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from dinoidd.config import SegmentConfig
from dinoidd.data.index import listed_images
from dinoidd.data.manifest import (
    FOLDER,
    ManifestInfo,
    read_manifest_info,
    read_rows,
    write_manifest,
)
from dinoidd.data.selection import Listed, Selection, sampled, select_images
from dinoidd.errors import ConfigError, InputError
from dinoidd.output.schema import ROWS_PER_GROUP, images_schema
from dinoidd.segment.chunk_file import RowWriter
from dinoidd.segment.cluster import ACTOR_CPUS
from dinoidd.segment.job import segment
from dinoidd.segment.preparation import IMAGES, origin_of
from dinoidd.segment.run_record import RunRecord, read_record
from dinoidd.segment.session import actor_hours
from dinoidd.segment.tally import Tally
from dinoidd.storage import ObjectInfo, StorageOptions, Store
from dinoidd.upkeep.rewrite import regrouped, row_groups

_BUSY = ("decode", "encode", "write")  # stages that want cores; fetching waits for the network
_PIECES = 16  # chunks of the sample at least: the first is start-up


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One actor on a sample of the images; seconds are by stage and image, bytes by image."""

    images: int
    ok: int
    device: str
    images_per_second: float  # after the start
    timed: int  # images that this rests on
    startup_seconds: float
    seconds: dict[str, float]
    bytes_read: float
    bytes_written: float

    @property
    def cores_per_actor(self) -> float:
        """CPU cores that an actor and the tasks beside it keep busy."""
        return ACTOR_CPUS + self.images_per_second * sum(self.seconds[stage] for stage in _BUSY)

    @property
    def downloads_per_actor(self) -> float:
        """Images that are on their way at any moment."""
        return self.images_per_second * self.seconds["fetch"]


@dataclass(frozen=True, kw_only=True)
class SegmentPlan:
    """A run over `images` images with `actors` actors, each with a GPU where it has one."""

    images: int
    measured: Measured
    actors: int = 1
    gpu_price: float | None = None  # of an hour of one GPU, in any currency
    deadline_seconds: float | None = None

    @property
    def actor_hours(self) -> float:
        """Of work alone, without start-up; GPU-hours where actors have GPUs."""
        return self.images / self.measured.images_per_second / 3600

    @property
    def hours(self) -> float:
        return self.actor_hours / self.actors + self.measured.startup_seconds / 3600

    @property
    def cost(self) -> float | None:
        """Of all GPUs for all hours; None where there is no price, or no GPU was measured."""
        if self.gpu_price is None or self.measured.device != "cuda":
            return None
        return self.hours * self.actors * self.gpu_price

    @property
    def cores(self) -> int:
        return math.ceil(self.actors * self.measured.cores_per_actor)

    @property
    def output_bytes(self) -> float:
        return self.images * self.measured.bytes_written

    def in_time(self) -> "SegmentPlan | None":
        """The same with as many actors as the deadline asks for. Raises ConfigError if none do."""
        if self.deadline_seconds is None:
            return None
        left = self.deadline_seconds - self.measured.startup_seconds
        if left <= 0:
            raise ConfigError(
                f"--deadline: {self.deadline_seconds:g} s are over before the model is loaded, which "
                f"took {self.measured.startup_seconds:.0f} s"
            )
        return replace(self, actors=max(1, math.ceil(self.actor_hours * 3600 / left)))

    def to_dict(self) -> dict[str, Any]:
        measured = self.measured
        figures = {
            "images": self.images,
            "images_per_second_per_actor": measured.images_per_second,
            "actor_hours": self.actor_hours,
            "output_bytes": self.output_bytes,
            "sample": vars(measured)
            | {
                "cores_per_actor": measured.cores_per_actor,
                "downloads_per_actor": measured.downloads_per_actor,
            },
            "plan": self._placed(),
        }
        deadline = self.in_time()
        return figures | ({} if deadline is None else {"deadline": deadline._placed()})

    def _placed(self) -> dict[str, Any]:
        gpus = self.actors if self.measured.device == "cuda" else 0
        per_million = None if self.cost is None else self.cost / self.images * 1e6
        return {
            "actors": self.actors,
            "gpus": gpus,
            "cpu_cores": self.cores,
            "hours": self.hours,
            "cost": self.cost,
            "cost_per_million_images": per_million,
        }


def measure(
    config: SegmentConfig,
    *,
    sample: int,
    manifest: str | None = None,
    device: str = "auto",
    address: str | None = None,
    accelerator_type: str | None = None,
) -> tuple[int, Measured]:
    """Time a sample on one actor; with it, of how many images it is a sample.

    Args:
        config: `input` is listed, unless `manifest` says which images there are. What is written goes
            below `output`, a temporary folder where that is empty, and is removed.
        sample: images.
        manifest: a run's folder, or the manifest folder in it.

    Raises:
        DinoiddError: there are no images, or the job cannot run.
    """
    options = StorageOptions(endpoint_url=config.endpoint_url)
    with _scratch(config.output, options) as output:
        if manifest is None:
            rows, info = _sample_of_input(config, output, options, sample)
        else:
            rows, info = _sample_of_manifest(manifest, output, options, sample)
        chunk = max(1, info.rows // _PIECES // config.batch_size) * config.batch_size
        config = replace(
            config,
            input=info.input,
            more_inputs=(),
            where=None,
            output=output.uri,
            actors=1,
            rows_per_chunk=min(64, chunk),
        )
        segment(config, device=device, address=address, accelerator_type=accelerator_type)
        record = read_record(output)
        assert record is not None
        return rows, measured_in(record, _bytes_in_groups(output, record))


@contextmanager
def _scratch(where: str, options: StorageOptions) -> Iterator[Store]:
    """An empty folder that is removed at the end."""
    if not where:
        with tempfile.TemporaryDirectory(prefix="dinoidd-plan-") as folder:
            yield Store.open(folder)
        return
    store = Store.open(where, options).child(f"dinoidd-plan-{uuid.uuid4().hex[:8]}")
    try:
        yield store
    finally:
        store.remove_all()


def _sample_of_input(
    config: SegmentConfig, output: Store, options: StorageOptions, wanted: int
) -> tuple[int, ManifestInfo]:
    origin, counts, listed = origin_of(config), Counter[str](), Listed()
    fitting = select_images(listed_images(origin, options, counts), Selection(where=config.where))
    drawn = select_images(listed.counted(fitting), Selection(sample=wanted))
    folder = output.child(FOLDER)
    info = write_manifest(folder, drawn, input_uri=origin.inputs[0], counts=counts)
    return listed.rows, info


def _sample_of_manifest(
    uri: str, output: Store, options: StorageOptions, wanted: int
) -> tuple[int, ManifestInfo]:
    given = Store.open(uri, options)
    for folder in (given.child(FOLDER), given):
        if (info := read_manifest_info(folder)) is not None:
            break
    else:
        raise InputError(
            f"there is no finished manifest in {given.uri}: give the --output of `dinoidd index`"
        )

    def images() -> Iterator[ObjectInfo]:
        for row in sampled(range(info.rows), info.rows, wanted, 0):
            (found,) = read_rows(folder, row, row + 1, info.sha256).to_pylist()
            yield ObjectInfo(uri=found["uri"], size=found["size"], etag=found["etag"])

    drawn = write_manifest(output.child(FOLDER), images(), input_uri=info.input, counts={})
    return info.rows, drawn


def _bytes_in_groups(output: Store, record: RunRecord) -> int:
    """Bytes of all rows in row groups of full size, as in a large run; nothing is written."""
    counted, layout = pa.MockOutputStream(), record.layout
    names = map(layout.file_name, range(layout.files))
    tables = (table for name in names for table in row_groups(output.child(IMAGES), name))
    with RowWriter(counted, images_schema(record.table)) as writer:
        for table in regrouped(tables, ROWS_PER_GROUP):
            writer.write(table, Tally())
    return counted.size()


def measured_in(record: RunRecord, bytes_written: int) -> Measured:
    """What a finished run of one actor and one session says. Raises ConfigError: it was too short."""
    summary, images = record.summary, record.summary["images"]
    session = record.sessions[-1]
    if session["steady_images_per_second"] is None:
        raise ConfigError(
            f"{images:,} images are a single piece of work, which is all start-up: more are needed, "
            "or a smaller --batch-size"
        )
    return Measured(
        images=images,
        ok=summary["ok"],
        device=session["device"],
        images_per_second=session["steady_images_per_second"],
        timed=session["steady_images"],
        startup_seconds=session["startup_seconds"],
        seconds={stage: value / images for stage, value in summary["stage_seconds"].items()},
        bytes_read=summary["bytes_read"] / images,
        bytes_written=bytes_written / images,
    )


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a finished run really took; of sessions that were killed nothing is known."""

    images: int  # of the sessions that are known
    actors: int  # of the last session, the most at a time
    device: str
    hours: float
    actor_hours: float
    output_bytes: int

    @property
    def images_per_second_per_actor(self) -> float:
        """Start-up included."""
        return self.images / (self.actor_hours * 3600)

    def cost(self, gpu_price: float | None) -> float | None:
        if gpu_price is None or self.device != "cuda":
            return None
        return self.actor_hours * gpu_price

    def to_dict(self, gpu_price: float | None) -> dict[str, Any]:
        rate = {"images_per_second_per_actor": self.images_per_second_per_actor}
        return vars(self) | rate | {"cost": self.cost(gpu_price)}


def took(uri: str, options: StorageOptions) -> Took:
    """Read it from a run's record. Raises InputError where that does not say."""
    record = read_record(Store.open(uri, options))
    known = [s for s in record.sessions if "actors" in s and s["images"]] if record else []
    if record is None or not known or not record.finished:
        raise InputError(f"{uri} holds no finished run that says what it took")
    return Took(
        images=sum(s["images"] for s in known),
        actors=known[-1]["actors"],
        device=known[-1]["device"],
        hours=sum(s["seconds"] for s in known) / 3600,
        actor_hours=sum(map(actor_hours, known)),
        output_bytes=record.summary["bytes_written"],
    )
