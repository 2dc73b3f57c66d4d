"""Chunks into the files that readers see: whole, once, and the same when it is done twice."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from segment_runs import TABLE, check_mask, rows_of

from dinoidd.errors import OutputError, StorageError
from dinoidd.output.schema import ROWS_PER_GROUP, images_schema
from dinoidd.segment import chunk_file
from dinoidd.segment.chunk_file import read_chunk, read_footer
from dinoidd.segment.layout import Layout
from dinoidd.segment.merging import finished_chunks, finished_files, remove_foreign
from dinoidd.segment.output_file import merge_file
from dinoidd.segment.packed_classes import pack_classes
from dinoidd.segment.stages import _SEGMENTED, WriteRows
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

SCHEMA = images_schema(TABLE, run_id="run-1", fingerprint="f" * 64)
LAYOUT = Layout(rows=23, rows_per_chunk=3, rows_per_file=9)  # files of 3, 3 and 2 chunks


def segmented(start: int, stop: int, size: int = 8) -> pa.Table:
    """What SegmentImages hands on; every fifth row is an error."""
    return pa.Table.from_pylist([_row(i, size) for i in range(start, stop)], schema=_SEGMENTED)


def _row(i: int, size: int) -> dict[str, object]:
    row = {"image_id": i, "uri": f"/in/{i}.png", "bytes": 100, "fetch_seconds": 0.25}
    row |= {"decode_seconds": 0.25, "model_seconds": 0.25}
    if i % 5 == 0:
        return row | {"error_kind": "missing", "error": "there is no such file"}
    classes = np.random.default_rng(i).integers(0, len(TABLE), (size, size), dtype=np.uint8)
    sure = {"confidence": 0.5, "entropy": 0.25, "margin": 0.125}
    return row | sure | {"height": size, "width": size, "classes": pack_classes(classes)}


@dataclass(frozen=True)
class Folders:
    """Staging and output of a run, and the pieces of work on them."""

    root: Store
    layout: Layout = LAYOUT

    @property
    def staging(self) -> Store:
        return self.root.child("_staging")

    @property
    def images(self) -> Store:
        return self.root.child("images")

    def write(self, chunk: int) -> Tally:
        write = WriteRows(staging=self.staging, layout=self.layout, schema=SCHEMA)
        return write(segmented(*self.layout.chunk_range(chunk)))

    def write_chunks_of(self, file: int) -> list[Tally]:
        return [self.write(chunk) for chunk in self.layout.chunks_of(file)]

    def merge(self, file: int, schema: pa.Schema = SCHEMA) -> Tally:
        merge_file(
            file, layout=self.layout, staging=self.staging, images=self.images, schema=schema
        )
        return read_footer(self.images, self.layout.file_name(file))[1]


@pytest.fixture
def folders(store: Store) -> Folders:
    return Folders(store)


@pytest.fixture
def local(tmp_path: Path) -> Folders:
    return Folders(Store.open(str(tmp_path)))


def test_merge_file__has_the_rows_of_its_range_in_order(folders: Folders) -> None:
    for file in range(LAYOUT.files):
        folders.write_chunks_of(file)
        folders.merge(file)
    rows = rows_of(folders.root.uri, folders.root.options)
    assert [row["image_id"] for row in rows] == list(range(23))
    assert folders.images.names() == [LAYOUT.file_name(f) for f in range(LAYOUT.files)]
    assert folders.staging.names() == []
    for row in rows:
        assert row["uri"] == f"/in/{row['image_id']}.png"
        if row["image_id"] % 5:
            check_mask(row, TABLE.fields)
        else:
            assert (row["status"], row["error_kind"], row["mask"]) == ("error", "missing", None)


def test_merge_file__tally_is_the_sum_of_its_chunks(local: Folders) -> None:
    chunks = local.write_chunks_of(0)
    merged = local.merge(0)
    assert (merged.images, merged.ok, merged.errors) == (9, 7, {"missing": 2})
    for name in ("pixels", "images_with"):
        for field in TABLE.fields:
            assert getattr(merged, name)[field] == sum(getattr(c, name)[field] for c in chunks)
    assert merged.pixels.total() == 7 * 64
    assert merged.bytes_read == 900
    assert merged.seconds["model"] == pytest.approx(9 * 0.25)
    assert merged.seconds["write"] > 0
    file = Path(local.images.uri) / LAYOUT.file_name(0)
    assert merged.bytes_written == file.stat().st_size


def test_merge_file__twice_is_once(folders: Folders) -> None:
    folders.write_chunks_of(1)
    first = folders.merge(1)
    before = folders.images.read_bytes(LAYOUT.file_name(1))
    assert folders.merge(1) == first
    assert folders.images.read_bytes(LAYOUT.file_name(1)) == before


def test_merge_file__replaces_a_file_of_another_run(folders: Folders) -> None:
    other = images_schema(TABLE, run_id="run-0", fingerprint="e" * 64)
    folders.write_chunks_of(1)
    folders.merge(1, other)
    assert finished_files(LAYOUT, folders.images, "run-1") == {}
    folders.write_chunks_of(1)
    tally = folders.merge(1)
    assert finished_files(LAYOUT, folders.images, "run-1") == {1: tally}
    assert finished_files(LAYOUT, folders.images, "run-0") == {}


def test_remove_foreign__files_of_other_runs_alone(folders: Folders) -> None:
    for file in range(LAYOUT.files):
        folders.write_chunks_of(file)
        folders.merge(file)
    late = Folders(folders.root, Layout(rows=23, rows_per_chunk=3, rows_per_file=6))
    late.write_chunks_of(1)
    late.merge(1, images_schema(TABLE, run_id="run-0", fingerprint="e" * 64))
    own = [LAYOUT.file_name(file) for file in range(LAYOUT.files)]
    assert folders.images.names() == sorted([*own, late.layout.file_name(1)])
    remove_foreign(LAYOUT, folders.images, "run-1")
    assert folders.images.names() == own
    late.write_chunks_of(1)
    late.merge(1)  # of the same run: nobody does that
    for name in (late.layout.file_name(1), "z.parquet"):
        folders.images.write_bytes("z.parquet", b"")
        with pytest.raises(OutputError, match=f"{name} is none of the run's files"):
            remove_foreign(LAYOUT, folders.images, "run-1")
        folders.images.remove(name)


def test_merge_file__killed_while_it_removed_chunks(folders: Folders) -> None:
    folders.write_chunks_of(1)
    first = folders.merge(1)
    folders.write(LAYOUT.chunks_of(1)[1])  # as if it had died before this one was gone
    assert folders.merge(1) == first
    assert folders.staging.names() == []


def test_merge_file__killed_before_the_upload_ended(local: Folders) -> None:
    local.write_chunks_of(0)
    hidden = Path(local.images.uri) / ".0123.tmp"
    hidden.parent.mkdir()
    hidden.write_bytes(b"PAR1 half of a file")
    local.merge(0)
    assert local.images.names() == [LAYOUT.file_name(0)]


def test_merge_file__a_chunk_is_missing(folders: Folders) -> None:
    folders.write_chunks_of(0)
    folders.staging.remove(LAYOUT.chunk_name(1))
    with pytest.raises(StorageError, match=LAYOUT.chunk_name(1)) as caught:
        folders.merge(0)
    assert caught.value.kind == "missing"
    assert folders.images.names() == []
    assert len(folders.staging.names()) == 2, "what is done is kept"


def test_merge_file__a_task_of_a_killed_driver_does_the_same(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives on for seconds, and may take the chunks away that this one is about to read."""
    folders.write_chunks_of(0)
    read, others = Store.read_bytes, iter([lambda: folders.merge(0)])

    def read_late(store: Store, name: str) -> bytes:
        if name == LAYOUT.chunk_name(1):
            next(others, lambda: None)()
        return read(store, name)

    monkeypatch.setattr(Store, "read_bytes", read_late)
    assert folders.merge(0).images == 9
    assert next(others, None) is None
    assert folders.images.names() == [LAYOUT.file_name(0)]
    assert folders.staging.names() == []


def plain_parquet() -> bytes:
    """A whole file, which no run wrote."""
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"image_id": [0, 1, 2]}), buffer)
    return bytes(buffer.getvalue().to_pybytes())


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-200],
    "footer": lambda data: data[:-20] + b"\xff" * 12 + data[-8:],
    "pages": lambda data: data[:4] + b"\xff" * (len(data) // 2) + data[4 + len(data) // 2 :],
    "foreign": lambda data: plain_parquet(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_merge_file__a_damaged_chunk_is_done_again(folders: Folders, damage: str) -> None:
    folders.write_chunks_of(0)
    name = LAYOUT.chunk_name(1)
    folders.staging.write_bytes(name, DAMAGE[damage](folders.staging.read_bytes(name)))
    with pytest.raises(StorageError, match=f"{name} is damaged, or no file that a run") as caught:
        folders.merge(0)
    assert str(caught.value).endswith(
        "): it is removed; run the same command again, which does its images anew"
    )
    assert finished_chunks(LAYOUT, folders.staging) == {0, 2}
    folders.write(1)
    assert folders.merge(0).images == 9


@pytest.mark.parametrize(
    "error",
    [pa.ArrowMemoryError("malloc failed"), TimeoutError(), ConnectionResetError()],
    ids=repr,
)
def test_read_chunk__what_is_no_damage_keeps_the_file(
    local: Folders, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    local.write(0)
    monkeypatch.setattr(chunk_file.pq, "read_table", fail)
    with pytest.raises(type(error)) as caught:
        read_chunk(local.staging, LAYOUT.chunk_name(0), SCHEMA)
    assert caught.value is error
    assert local.staging.names() == [LAYOUT.chunk_name(0)]


@pytest.mark.parametrize("damage", [kind for kind in DAMAGE if kind != "pages"])
def test_finished_files__a_damaged_one_is_named(folders: Folders, damage: str) -> None:
    folders.write_chunks_of(0)
    folders.merge(0)
    name = LAYOUT.file_name(0)
    folders.images.write_bytes(name, DAMAGE[damage](folders.images.read_bytes(name)))
    told = rf"{name} is damaged, or no file .*: remove it, and run the same command again$"
    with pytest.raises(StorageError, match=told) as caught:
        finished_files(LAYOUT, folders.images, "run-1")
    assert caught.value.kind == "damaged"


def test_merge_file__a_chunk_with_other_rows(local: Folders) -> None:
    local.write_chunks_of(0)
    local.write(3)
    staging = Path(local.staging.uri)
    (staging / LAYOUT.chunk_name(3)).replace(staging / LAYOUT.chunk_name(1))
    with pytest.raises(AssertionError, match="has rows"):
        local.merge(0)
    assert local.images.names() == []


def test_merge_file__a_chunk_that_is_short(local: Folders) -> None:
    local.write_chunks_of(0)
    name = LAYOUT.chunk_name(2)
    path = Path(local.staging.uri) / name
    table = pq.read_table(path)
    tally = read_footer(local.staging, name)[1].to_dict()
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table.slice(0, 2))
        writer.add_key_value_metadata({"dinoidd.tally": json.dumps(tally)})
    with pytest.raises(AssertionError, match="would end at row 8, not 9"):
        local.merge(0)
    assert local.images.names() == []


def test_output_file__is_made_for_its_readers(tmp_path: Path) -> None:
    layout = Layout(rows=150, rows_per_chunk=50, rows_per_file=150)
    folders = Folders(Store.open(str(tmp_path)), layout)
    folders.write_chunks_of(0)
    folders.merge(0)
    metadata = pq.read_metadata(tmp_path / "images" / layout.file_name(0))
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert max(group.num_rows for group in groups) <= ROWS_PER_GROUP
    columns = {c.path_in_schema: c for c in map(groups[0].column, range(groups[0].num_columns))}
    assert columns["mask.bytes"].compression == "UNCOMPRESSED", "PNG is compressed already"
    assert not columns["mask.bytes"].is_stats_set
    assert columns["pixels.road"].compression == "ZSTD"
    assert columns["pixels.road"].statistics.has_min_max, "a query skips row groups by these"
    assert columns["status"].has_dictionary_page
    schema = pq.read_schema(tmp_path / "images" / layout.file_name(0))
    assert schema.metadata[b"dinoidd.run_id"] == b"run-1"
    assert schema.equals(SCHEMA)
