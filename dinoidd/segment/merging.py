"""Output files written while the run goes on: each as soon as the last of its chunks is there."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray

from dinoidd.errors import OutputError
from dinoidd.log import logger
from dinoidd.output.schema import range_of
from dinoidd.segment.chunk_file import read_footer
from dinoidd.segment.flow import InStage
from dinoidd.segment.layout import Layout
from dinoidd.segment.output_file import merge_file
from dinoidd.segment.pipeline import user_error
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

_RETRIES = 5
_READERS = 16  # footers read at a time
_CPUS = 0.1  # it copies bytes; more than none keeps it off a head node without work


class Merging:
    """Follows which chunks are done, and starts a Ray task for each file that is complete."""

    def __init__(
        self, layout: Layout, files: Iterable[int], staging: Store, images: Store, schema: pa.Schema
    ) -> None:
        self._layout = layout
        self._arguments = {"layout": layout, "staging": staging, "images": images, "schema": schema}
        self._open = {file: set(layout.chunks_of(file)) for file in files}
        self._running: list[ray.ObjectRef] = []
        self._finished = 0
        self._merge = ray.remote(num_cpus=_CPUS, max_retries=_RETRIES)(merge_file)

    def chunk_done(self, chunk: int) -> None:
        file = self._layout.file_of(chunk)
        waiting = self._open.get(file)
        if waiting is None:
            return
        waiting.discard(chunk)
        if not waiting:
            del self._open[file]
            self._running.append(self._merge.remote(file, **self._arguments))

    def check(self, *, wait: bool = False) -> None:
        """Raise what a task raised, of those that have ended; with `wait`, wait for all."""
        while self._running:
            done, self._running = ray.wait(self._running, timeout=None if wait else 0)
            if not done:
                return
            for reference in done:
                _raise_failure(reference)
                self._finished += 1

    def stage(self) -> InStage:
        """How many files are being put together, and how many have been."""
        return InStage(running=len(self._running), waiting=0, finished=self._finished)

    def settle(self) -> None:
        """Wait until no task is running, whatever became of them: two would be in each other's way."""
        while self._running:
            _, self._running = ray.wait(self._running)
            self._finished += 1


def _raise_failure(reference: ray.ObjectRef) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error


def finished_files(layout: Layout, images: Store, run_id: str) -> dict[int, Tally]:
    """The output files of this run that are there. A file of another run does not count.

    Names appear whole or not at all, so a name means a whole file.
    """
    names = set(images.names())
    files = [file for file in range(layout.files) if layout.file_name(file) in names]
    with ThreadPoolExecutor(_READERS) as pool:
        footers = pool.map(lambda file: read_footer(images, layout.file_name(file)), files)
        return {f: tally for f, (of, tally) in zip(files, footers, strict=True) if of == run_id}


def remove_foreign(layout: Layout, images: Store, run_id: str) -> None:
    """Remove output files of other runs, which a reader of the folder would take for this one's.

    A task of a killed driver may write one late, when `--restart` has begun a run of other ranges.

    Raises:
        OutputError: names a file that no other run wrote.
    """
    own = {layout.file_name(file) for file in range(layout.files)}
    for name in images.names():
        if name in own:
            continue
        uri = images.uri_of(name)
        if range_of(name, "part") is None or read_footer(images, name)[0] == run_id:
            raise OutputError(
                f"{uri} is none of the run's files, and readers would take it for one: move it away, "
                "and run the same command again"
            )
        logger.warning(f"{uri} is of another run, which ended late: removing it")
        images.remove(name)


def finished_chunks(layout: Layout, staging: Store) -> set[int]:
    """The chunks in this run's staging folder."""
    ranges = (range_of(name, "chunk") for name in staging.names())
    return {start // layout.rows_per_chunk for start, _ in filter(None, ranges)}
