"""Every row is in exactly one chunk and in exactly one file, whatever the sizes."""

import itertools

import pytest

from dinoidd.output.schema import range_of
from dinoidd.segment.layout import Layout, make_layout

ROWS = [1, 2, 3, 7, 8, 9, 63, 64, 65, 100, 511, 512, 1000]
CHUNKS = [1, 2, 3, 8, 64]
FILES = [1, 2, 5, 64]  # chunks a file


def layouts() -> list[Layout]:
    return [
        Layout(rows=rows, rows_per_chunk=chunk, rows_per_file=chunk * chunks)
        for rows, chunk, chunks in itertools.product(ROWS, CHUNKS, FILES)
    ]


def test_chunks__hold_every_row_once() -> None:
    for layout in layouts():
        rows = [r for c in range(layout.chunks) for r in range(*layout.chunk_range(c))]
        assert rows == list(range(layout.rows)), layout
        assert sum(layout.rows_of(c) for c in range(layout.chunks)) == layout.rows
        assert all(layout.rows_of(c) >= 1 for c in range(layout.chunks)), layout


def test_files__hold_every_chunk_once_and_all_of_it() -> None:
    for layout in layouts():
        chunks = [c for f in range(layout.files) for c in layout.chunks_of(f)]
        assert chunks == list(range(layout.chunks)), layout
        for file in range(layout.files):
            inside = [layout.chunk_range(c) for c in layout.chunks_of(file)]
            assert (inside[0][0], inside[-1][1]) == layout.file_range(file), layout
            assert {layout.file_of(c) for c in layout.chunks_of(file)} == {file}, layout


def test_names__lead_back_to_their_rows() -> None:
    layout = Layout(rows=1000, rows_per_chunk=64, rows_per_file=128)
    assert layout.chunk_name(1) == "chunk-000000000064-000000000128.parquet"
    assert layout.file_name(7) == "part-000000000896-000000001000.parquet"
    for chunk in range(layout.chunks):
        assert range_of(layout.chunk_name(chunk), "chunk") == layout.chunk_range(chunk)
    for file in range(layout.files):
        assert range_of(layout.file_name(file), "part") == layout.file_range(file)


@pytest.mark.parametrize(
    "name",
    [
        "part-1-2.parquet",
        "part-000000000000-000000000064.parquet.tmp",
        ".part-000000000000-000000000064.parquet",
        "part-000000000000.parquet",
        "notes.txt",
    ],
)
def test_range_of__a_foreign_name(name: str) -> None:
    assert range_of(name, "part") is None


def test_make_layout__suits_the_run() -> None:
    for rows, batch, actors in itertools.product(ROWS, [1, 3, 8, 100], [1, 4, 16]):
        layout = make_layout(
            rows, batch_size=batch, actors=actors, rows_per_chunk=None, rows_per_file=4096
        )
        assert layout.rows_per_chunk % batch == 0, "a chunk is whole batches"
        assert layout.rows_per_file % layout.rows_per_chunk == 0
        assert layout.rows_per_chunk <= max(batch, 64 + batch - 1)
        if rows >= 8 * actors * batch:
            assert layout.chunks >= 2 * actors, "all actors have work"


def test_make_layout__given_sizes() -> None:
    layout = make_layout(1000, batch_size=8, actors=1, rows_per_chunk=10, rows_per_file=25)
    assert (layout.rows_per_chunk, layout.rows_per_file) == (10, 30)  # whole chunks, not fewer rows
    layout = make_layout(1000, batch_size=8, actors=1, rows_per_chunk=100, rows_per_file=1)
    assert (layout.rows_per_chunk, layout.rows_per_file) == (100, 100)


def test_make_layout__a_large_run() -> None:
    layout = make_layout(
        100_000_001, batch_size=8, actors=512, rows_per_chunk=None, rows_per_file=4096
    )
    assert (layout.rows_per_chunk, layout.rows_per_file) == (64, 4096)
    assert layout.chunk_range(layout.chunks - 1) == (100_000_000, 100_000_001)
