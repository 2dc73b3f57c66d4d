"""One session's work on a run: do the chunks that are not done, write the files, and say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER
from dinoidd.inference.source import ModelSource
from dinoidd.log import logger
from dinoidd.output.schema import images_schema
from dinoidd.segment.cluster import Placement
from dinoidd.segment.merging import Merging, done_before
from dinoidd.segment.pace import Pace
from dinoidd.segment.pipeline import run_chunks
from dinoidd.segment.preparation import IMAGES, STAGING
from dinoidd.segment.progress import Progress
from dinoidd.segment.run_record import SUCCESS, RunRecord, write_record
from dinoidd.segment.stages import ReadImages, WriteRows
from dinoidd.segment.summary import summarise
from dinoidd.segment.tally import Tally, total
from dinoidd.storage import Store


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that a session of work needs to know."""

    config: SegmentConfig
    output: Store
    record: RunRecord
    placement: Placement
    source: ModelSource
    image_size: int

    def run(self) -> dict[str, Any]:
        """Work until the run is finished; returns its summary."""
        layout = self.record.layout
        staging, images = self.output.child(STAGING), self.output.child(IMAGES)
        schema = images_schema(
            self.record.table, run_id=self.record.run_id, fingerprint=self.record.fingerprint
        )
        done = done_before(layout, staging, images)
        merging = Merging(layout, staging, images, schema)
        for chunk in sorted(done):
            merging.chunk_done(chunk)
        pending = [chunk for chunk in range(layout.chunks) if chunk not in done]
        rows_before = layout.rows - sum(layout.rows_of(chunk) for chunk in pending)
        if rows_before:
            logger.info(f"resuming: {rows_before:,} of {layout.rows:,} images are done")
        write = WriteRows(staging=staging, layout=layout, schema=schema)
        pace = Pace()
        files = self._work(pending, write, merging, Progress(layout.rows, rows_before), pace)
        return self._finish(total(files), pace, rows_before)

    def _work(
        self,
        pending: list[int],
        write: WriteRows,
        merging: Merging,
        progress: Progress,
        pace: Pace,
    ) -> list[Tally]:
        """The tallies of all files."""
        files: list[Tally] = []
        try:
            for chunk, tally in self._chunks(pending, write):
                pace.add(tally.images)
                progress.add(tally)
                merging.chunk_done(chunk)
                files.extend(merging.finished())
            files.extend(merging.finished(wait=True))
        finally:
            progress.close()
        return files

    def _chunks(self, pending: list[int], write: WriteRows) -> Iterator[tuple[int, Tally]]:
        if not pending:
            return iter(())
        config = self.config
        read = ReadImages(
            manifest=self.output.child(FOLDER),
            layout=self.record.layout,
            image_size=self.image_size,
            threads=config.threads,
            max_pixels=config.max_pixels,
            max_bytes=config.max_bytes,
            storage=self.output.options,
        )
        segment = {
            "source": self.source,
            "image_size": self.image_size,
            "batch_size": config.batch_size,
            "device": self.placement.device,
            "threads": self.placement.threads,
        }
        return run_chunks(
            pending, read=read, segment=segment, write=write, placement=self.placement
        )

    def _finish(self, tally: Tally, pace: Pace, before: int) -> dict[str, Any]:
        """Write the record, clean up, and mark the run as finished, in that order."""
        rows = self.record.layout.rows
        assert tally.images == rows, f"{tally.images} rows were written of {rows}"
        summary = summarise(tally, self.record.table, pace)
        record = self.record.with_session({"rows_before": before} | pace.to_dict())
        write_record(self.output, record.with_result(tally, summary))
        self.output.child(STAGING).remove_all()
        self.output.write_bytes(SUCCESS, f"{record.run_id}\n".encode())
        return summary
