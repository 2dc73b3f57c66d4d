"""How a run's rows are cut: into chunks, the unit of work and of resuming, and into output files.

Names are derived from ranges of the manifest. Doing a piece of work twice therefore replaces a file
by an equal one, and what is done can be told from the names alone.
"""

from dataclasses import dataclass

from dinoidd.output.schema import range_name

# Folders of an output: the files that readers see, and the chunks of unfinished ones.
IMAGES, STAGING = "images", "_staging"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`rows_per_file` is a multiple of `rows_per_chunk`."""

    rows: int
    rows_per_chunk: int
    rows_per_file: int

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.rows_per_chunk)

    @property
    def files(self) -> int:
        return -(-self.rows // self.rows_per_file)

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """First row of a chunk, and the row after its last."""
        return self._range(chunk, self.rows_per_chunk)

    def file_range(self, file: int) -> tuple[int, int]:
        """First row of an output file, and the row after its last."""
        return self._range(file, self.rows_per_file)

    def rows_of(self, chunk: int) -> int:
        start, stop = self.chunk_range(chunk)
        return stop - start

    def chunks_of(self, file: int) -> range:
        start, stop = self.file_range(file)
        return range(start // self.rows_per_chunk, -(-stop // self.rows_per_chunk))

    def file_of(self, chunk: int) -> int:
        return chunk * self.rows_per_chunk // self.rows_per_file

    def chunk_name(self, chunk: int) -> str:
        return range_name("chunk", *self.chunk_range(chunk))

    def file_name(self, file: int) -> str:
        return range_name("part", *self.file_range(file))

    def _range(self, index: int, size: int) -> tuple[int, int]:
        return index * size, min((index + 1) * size, self.rows)


def make_layout(
    rows: int, *, batch_size: int, actors: int, rows_per_chunk: int | None, rows_per_file: int
) -> Layout:
    """Chunks of 64 images, fewer where a small run could not keep all actors busy to its end."""
    if rows_per_chunk is None:
        fair_share = -(-rows // (4 * actors))
        batches = -(-min(64, fair_share) // batch_size)
        rows_per_chunk = max(1, batches) * batch_size
    chunks_per_file = -(-max(rows_per_file, rows_per_chunk) // rows_per_chunk)
    return Layout(
        rows=rows, rows_per_chunk=rows_per_chunk, rows_per_file=chunks_per_file * rows_per_chunk
    )
