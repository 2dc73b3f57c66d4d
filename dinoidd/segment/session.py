"""One session's work on a run: do the chunks that are not done, write the files, and say so."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER
from dinoidd.errors import DinoiddError, OutageError, OutputError
from dinoidd.inference.source import ModelSource
from dinoidd.log import logger
from dinoidd.output.schema import images_schema
from dinoidd.segment import cluster
from dinoidd.segment.cluster import Placement
from dinoidd.segment.flow import Flow, InStage
from dinoidd.segment.lock import Lock
from dinoidd.segment.merging import Merging, finished_chunks, finished_files, remove_foreign
from dinoidd.segment.metrics import RunMetrics
from dinoidd.segment.outage import Outage, check_output
from dinoidd.segment.pace import Pace
from dinoidd.segment.pipeline import run_chunks
from dinoidd.segment.preparation import IMAGES, STAGING
from dinoidd.segment.progress import Progress
from dinoidd.segment.run_record import SUCCESS, RunRecord, read_record, write_record
from dinoidd.segment.sources import Sources
from dinoidd.segment.stages import ReadImages, WriteRows
from dinoidd.segment.standstill import Standstill
from dinoidd.segment.summary import summarise
from dinoidd.segment.tally import Tally, total
from dinoidd.segment.watch import Watch
from dinoidd.storage import Store


class Worked:
    """What this session has done, and those who are told of it."""

    def __init__(self, record: RunRecord, placement: Placement) -> None:
        self.tally, self.pace = Tally(), Pace()
        self.moved = 0  # bytes through the object store
        self.hours_before = _gpu_hours(record)
        self.metrics = RunMetrics(
            rows=record.layout.rows,
            gpus=placement.num_gpus * placement.actors,
            gpu_hours=self.hours_before,
        )

    def add(self, tally: Tally) -> None:
        self.tally.add(tally)
        self.pace.add(tally.images)
        self.metrics.add(tally)


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that a session of work needs to know."""

    config: SegmentConfig
    output: Store
    record: RunRecord
    placement: Placement
    source: ModelSource
    image_size: int
    lock: Lock
    of_failures: bool = False  # of its images, see `Sources`

    def run(self) -> dict[str, Any]:
        """Work until the run is finished, through outages of the store; returns its summary."""
        worked = Worked(self.record, self.placement)
        outage = Outage(self.config.outage_patience, self._check_stores)
        try:
            while True:
                try:
                    self._run(worked, outage)
                    return self._finish(worked)
                except OutageError as error:
                    outage.wait(error)
        except BaseException:
            self._record_unfinished(worked)
            raise

    def _record_unfinished(self, worked: Worked) -> None:
        """What this session took is told too, where it worked and the store can be asked."""
        if not worked.tally.images:
            return
        try:
            self._check_alone()
            session = {"unfinished": True} | self._session(worked)
            write_record(self.output, self.record.with_session(session))
        except DinoiddError:  # it ends by another error already
            logger.debug("the session is not in run.json", exc_info=True)

    def _check_stores(self) -> None:
        """Raise OutageError where input or output are out."""
        check_output(self.output)
        self._sources.check()

    @cached_property
    def _sources(self) -> Sources:
        return Sources(self.output.child(FOLDER), self.record, self.of_failures)

    def _run(self, worked: Worked, outage: Outage) -> None:
        """Do what the files say is not done."""
        layout = self.record.layout
        images = self.output.child(IMAGES)
        staging = self.output.child(STAGING, self.record.run_id)  # another run's chunks never count
        schema = images_schema(
            self.record.table, run_id=self.record.run_id, fingerprint=self.record.fingerprint
        )
        files = finished_files(layout, images, self.record.run_id)
        merging = Merging(layout, set(range(layout.files)) - set(files), staging, images, schema)
        done = finished_chunks(layout, staging)
        for chunk in sorted(done):
            merging.chunk_done(chunk)
        done.update(chunk for file in files for chunk in layout.chunks_of(file))
        pending = [chunk for chunk in range(layout.chunks) if chunk not in done]
        chunks = self._chunks(pending, WriteRows(staging=staging, layout=layout, schema=schema))
        rows_before = layout.rows - sum(layout.rows_of(chunk) for chunk in pending)
        self._work(chunks, rows_before, merging, worked, outage)

    def _work(
        self,
        chunks: Generator[tuple[int, Tally], None, None],
        rows_before: int,
        merging: Merging,
        worked: Worked,
        outage: Outage,
    ) -> None:
        """Take the chunks as they come, and see to their files."""
        layout = self.record.layout
        if rows_before:
            logger.info(
                f"resuming: {rows_before:,} of {layout.rows:,} images are done, in pieces of "
                f"{layout.rows_per_chunk}"
            )
        worked.metrics.resume(rows_before)
        progress = Progress(layout.rows, rows_before)
        with closing(progress), self._watched(merging, worked, progress):
            try:
                with closing(chunks):  # whatever a merge raises, nothing holds a GPU meanwhile
                    for chunk, tally in chunks:
                        progress.add(tally)
                        worked.add(tally)
                        outage.over()
                        self.lock.check(now=False)
                        merging.chunk_done(chunk)
                        merging.check()
                worked.moved += sum(stage.bytes for stage in Flow.last.values())
                merging.check(wait=True)
            except OutageError:
                merging.settle()
                raise

    def _watched(self, merging: Merging, worked: Worked, progress: Progress) -> Watch:
        """Tells the metrics where the pieces are, and people where nothing moves."""
        standstill = Standstill(cluster.room)

        def tell(stages: dict[str, InStage]) -> None:
            worked.metrics.tick(stages)
            if stages and (told := standstill.look(stages, progress.unfinished)):
                logger.warning(told)

        return Watch(lambda: Flow.stages() | {"merge": merging.stage()}, tell)

    def _chunks(
        self, pending: list[int], write: WriteRows
    ) -> Generator[tuple[int, Tally], None, None]:
        if not pending:
            return
        config = self.config
        read = ReadImages(
            manifest=self.output.child(FOLDER),
            manifest_sha256=self.record.identity["manifest sha256"],
            layout=self.record.layout,
            image_size=self.image_size,
            windows=config.windows,
            threads=config.threads,
            max_pixels=config.max_pixels,
            max_bytes=config.max_bytes,
            image_timeout=config.image_timeout,
            witnesses=self._sources.witnesses,
            storage=self.output.options,
        )
        segment = {
            "source": self.source,
            "image_size": self.image_size,
            "windows": config.windows,
            "batch_size": config.batch_size,
            "compiled": config.compile,
            "device": self.placement.device,
            "threads": self.placement.threads,
        }
        yield from run_chunks(
            pending, read=read, segment=segment, write=write, placement=self.placement
        )

    def _finish(self, worked: Worked) -> dict[str, Any]:
        """Check the files that are there, write the record, clean up, and mark the run as finished."""
        record = self.record
        self._check_alone()
        images = self.output.child(IMAGES)
        remove_foreign(record.layout, images, record.run_id)
        files = finished_files(record.layout, images, record.run_id)
        tally = total(files.values())
        if tally.images != record.layout.rows:
            raise OutputError(
                f"{self.output.uri} has {tally.images:,} rows of this run, not {record.layout.rows:,}: "
                "files were removed or replaced meanwhile. Run the same command again"
            )
        if worked.tally.images or not record.finished:
            summary = summarise(tally, worked.tally.seconds, record.table, worked.pace)
            before = {"rows_before": record.layout.rows - worked.tally.images}
            record = record.with_session(before | self._session(worked))
            record = record.with_result(tally, summary)
        write_record(self.output, record)
        self.output.child(STAGING).remove_all()
        self.output.write_bytes(SUCCESS, f"{record.run_id}\n".encode())
        return record.summary

    def _session(self, worked: Worked) -> dict[str, Any]:
        """What the work took, as run.json tells it."""
        return {
            "device": self.placement.device,
            "actors": max(self.placement.actors, worked.metrics.most_gpus),
            "gpu_hours": worked.metrics.gpu_hours - worked.hours_before,
            "accelerator_type": self.placement.accelerator_type,
            "threads": self.placement.threads,
            "stage_seconds": worked.tally.seconds,
            "object_store_bytes": worked.moved,
        } | worked.pace.to_dict()

    def _check_alone(self) -> None:
        """Notice a session that took over, or threw this run away and began another."""
        self.lock.check()
        current = read_record(self.output)
        if current is None or current.run_id != self.record.run_id:
            raise OutputError(f"{self.output.uri}: another session began a new run here meanwhile")


def actor_hours(session: dict[str, Any]) -> float:
    """Of a session that run.json tells of; with GPUs their number may have grown meanwhile."""
    return session.get("gpu_hours") or session["actors"] * session["seconds"] / 3600


def _gpu_hours(record: RunRecord) -> float:
    """Of the sessions before, as far as they could tell."""
    known = [s for s in record.sessions if s.get("device") == "cuda"]
    return sum(actor_hours(session) for session in known)
