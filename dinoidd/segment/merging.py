"""Output files written while the run goes on: each as soon as the last of its chunks is there."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import ray

from dinoidd.segment.layout import Layout, range_of
from dinoidd.segment.output_file import merge_file
from dinoidd.segment.pipeline import user_error
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

_RETRIES = 5
_CPUS = 0.1  # it copies bytes; more than none keeps it off a head node without work


class Merging:
    """Follows which chunks are done, and starts a Ray task for each file that is complete."""

    def __init__(self, layout: Layout, staging: Store, images: Store, schema: pa.Schema) -> None:
        self._layout = layout
        self._arguments = {"layout": layout, "staging": staging, "images": images, "schema": schema}
        self._open = {file: set(layout.chunks_of(file)) for file in range(layout.files)}
        self._running: list[ray.ObjectRef] = []
        self._merge = ray.remote(num_cpus=_CPUS, max_retries=_RETRIES)(merge_file)

    def chunk_done(self, chunk: int) -> None:
        file = self._layout.file_of(chunk)
        waiting = self._open.get(file)
        if waiting is None:
            return
        waiting.discard(chunk)
        if not waiting:
            self.start(file)

    def start(self, file: int) -> None:
        """Write the file now: its chunks are all there, or it was written before."""
        del self._open[file]
        self._running.append(self._merge.remote(file, **self._arguments))

    def finished(self, *, wait: bool = False) -> Iterator[Tally]:
        """Tallies of files written since the last call; with `wait`, of all that were started."""
        while self._running:
            done, self._running = ray.wait(self._running, timeout=None if wait else 0)
            if not done:
                return
            for reference in done:
                yield _result(reference)


def _result(reference: ray.ObjectRef) -> Tally:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error


def done_before(layout: Layout, staging: Store, images: Store) -> set[int]:
    """The chunks that earlier sessions finished, told from names alone.

    Names appear whole or not at all, so a name means a finished file.
    """
    files = {start // layout.rows_per_file for start, _ in _ranges(images.names())}
    inside = {chunk for file in files for chunk in layout.chunks_of(file)}
    chunks = {start // layout.rows_per_chunk for start, _ in _ranges(staging.names())}
    return chunks | inside


def _ranges(names: Iterable[str]) -> Iterator[tuple[int, int]]:
    return (r for r in map(range_of, names) if r is not None)
