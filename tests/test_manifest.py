"""The manifest: written as a stream, marked last, read by arithmetic; and `dinoidd index`."""

import hashlib
import itertools
import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dinoidd.cli import main
from dinoidd.data import manifest
from dinoidd.data.manifest import (
    ManifestInfo,
    index_images,
    read_manifest_info,
    read_rows,
    write_manifest,
)
from dinoidd.errors import InputError, OutputError, StorageError
from dinoidd.output.schema import MANIFEST
from dinoidd.storage import ObjectInfo, Store


def images(number: int) -> Iterator[ObjectInfo]:
    """Invented images, 100 bytes larger each."""
    for n in range(number):
        yield ObjectInfo(
            uri=f"s3://bucket/{n:07d}.jpg", size=n * 100, etag=f"{n:x}" if n % 2 else None
        )


def write(folder: Store, number: int) -> ManifestInfo:
    """A manifest of invented images."""
    return write_manifest(folder, images(number), input_uri="s3://bucket", counts={".txt": 2})


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eight rows a file, two a group: borders without bulk."""
    monkeypatch.setattr(manifest, "ROWS_PER_FILE", 8)
    monkeypatch.setattr(manifest, "ROWS_PER_GROUP", 2)
    yield
    manifest._row_group.cache_clear()
    manifest._parquet_file.cache_clear()


def test_write_manifest__rows_files_and_info(store: Store, small_files: None) -> None:
    info = write(store, 19)
    assert store.names() == [
        "manifest.json",
        "part-000000000000.parquet",
        "part-000000000008.parquet",
        "part-000000000016.parquet",
    ]
    filesystem, path = store.arrow_path()
    files = [f"{path}/{name}" for name in store.names()[1:]]
    table = ds.dataset(files, filesystem=filesystem, schema=MANIFEST).to_table()
    assert table["image_id"].to_pylist() == list(range(19))
    assert table["uri"].to_pylist() == [i.uri for i in images(19)]
    assert table["size"].to_pylist() == [i.size for i in images(19)]
    assert table["etag"].to_pylist() == [i.etag for i in images(19)]
    assert (info.rows, info.files, info.bytes, info.skipped) == (19, 3, 17_100, {".txt": 2})


def test_write_manifest__digest_is_over_the_content(tmp_path: Path) -> None:
    info = write(Store.open(str(tmp_path / "a")), 3)
    lines = "s3://bucket/0000000.jpg\x000\x00None\ns3://bucket/0000001.jpg\x00100\x001\n"
    lines += "s3://bucket/0000002.jpg\x00200\x00None\n"
    assert info.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert write(Store.open(str(tmp_path / "b")), 4).sha256 != info.sha256


def test_manifest_files__real_layout(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    info = write(store, 70_000)
    first = pq.ParquetFile(tmp_path / "part-000000000000.parquet")
    last = pq.ParquetFile(tmp_path / "part-000000065536.parquet")
    assert (first.metadata.num_rows, first.num_row_groups) == (65_536, 64)
    assert {first.metadata.row_group(n).num_rows for n in range(64)} == {1_024}
    assert (last.metadata.num_rows, last.num_row_groups) == (4_464, 5)
    assert first.schema_arrow.equals(MANIFEST)
    assert info.files == 2
    for start, stop in ((0, 64), (1_000, 1_064), (65_500, 65_564), (69_999, 70_000), (0, 70_000)):
        assert read_rows(store, start, stop)["image_id"].to_pylist() == list(range(start, stop))


def test_read_rows__every_range(store: Store, small_files: None) -> None:
    write(store, 19)
    rows = list(images(19))
    pairs = itertools.combinations(range(20), 2)
    for start, stop in pairs if store.uri.startswith("/") else [(0, 19), (7, 9), (5, 17), (18, 19)]:
        table = read_rows(store, start, stop)
        assert table.schema.equals(MANIFEST)
        assert table["image_id"].to_pylist() == list(range(start, stop))
        assert table["uri"].to_pylist() == [i.uri for i in rows[start:stop]]


def test_read_rows__outside(store: Store, small_files: None) -> None:
    write(store, 13)
    assert len(read_rows(store, 5, 5)) == 0
    with pytest.raises(OutputError, match="has no rows 12 to 14"):
        read_rows(store, 12, 14)
    with pytest.raises(StorageError, match=r"part-000000000016\.parquet cannot be read: there is"):
        read_rows(store, 16, 17)
    with pytest.raises(ValueError, match="no range"):
        read_rows(store, 3, 2)


def test_read_rows__opens_a_file_once_for_neighbours(
    tmp_path: Path, small_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path))
    write(store, 16)
    opened: list[Store] = []
    real = Store.arrow_path
    monkeypatch.setattr(Store, "arrow_path", lambda self: opened.append(self) or real(self))
    for start in range(8):
        read_rows(pickle.loads(pickle.dumps(store)), start, start + 1)
    assert len(opened) == 1


def test_read_rows__sees_a_rewritten_manifest(store: Store, small_files: None) -> None:
    write(store, 4)
    read_rows(store, 0, 2)
    other = (ObjectInfo(uri=f"/x/{n}", size=1) for n in range(4))
    write_manifest(store, other, input_uri="/x", counts={})
    assert read_rows(store, 0, 2)["uri"].to_pylist() == ["/x/0", "/x/1"]


def test_read_manifest_info__round_trip(store: Store) -> None:
    assert read_manifest_info(store) is None
    info = write(store, 3)
    assert read_manifest_info(store) == info


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"rows": 1}', b'{"surplus": 1}'])
def test_read_manifest_info__of_another_version(tmp_path: Path, data: bytes) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes("manifest.json", data)
    with pytest.raises(OutputError, match="no manifest that this version wrote"):
        read_manifest_info(store)


def test_write_manifest__unfinished_counts_as_none_and_is_rewritten(
    store: Store, small_files: None
) -> None:
    write(store, 20)

    def breaking() -> Iterator[ObjectInfo]:
        yield from images(12)
        raise StorageError("unreachable", "the store went away")

    with pytest.raises(StorageError, match="went away"):
        write_manifest(store, breaking(), input_uri="s3://bucket", counts={})
    assert read_manifest_info(store) is None
    assert store.names() == ["part-000000000000.parquet"]
    assert write(store, 3).files == 1
    assert store.names() == ["manifest.json", "part-000000000000.parquet"]


def test_write_manifest__failed_listing_keeps_the_old_one(store: Store) -> None:
    info = write(store, 3)
    with pytest.raises(InputError, match="there is no file or folder"):
        index_images(store.child("nowhere").uri, store, store.options)
    with pytest.raises(InputError, match="holds no image"):
        write_manifest(store, iter([]), input_uri="/empty", counts={})
    assert read_manifest_info(store) == info


def test_write_manifest__memory_stays_flat(tmp_path: Path) -> None:
    code = """
import resource, sys
from dinoidd.data.manifest import write_manifest
from dinoidd.storage import ObjectInfo, Store

def images(number):
    for n in range(number):
        yield ObjectInfo(uri=f"s3://bucket/{n % 977}/{n:0200d}.jpg", size=n, etag=f"{n:032x}")

def peak(number):
    folder = Store.open(f"{sys.argv[1]}/{number}")
    info = write_manifest(folder, images(number), input_uri="x", counts={})
    assert info.rows == number
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

first = peak(65_536)
print(peak(200_000) - first)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, capture_output=True, timeout=120
    )
    assert float(done.stdout) < 25  # MB; 200,000 such rows are over 60 MB as Python objects


def test_index_images__progress_and_duplicates(store: Store, small_files: None) -> None:
    store.write_bytes("list.txt", b"a.png\nb.png\na.png\n")
    told: list[int] = []
    info = index_images(store.uri_of("list.txt"), store, store.options, told.append)
    assert told == [2, 3]
    folder = store.child("manifest")
    uris = [store.uri_of(name) for name in ("a.png", "b.png", "a.png")]
    assert read_rows(folder, 0, info.rows)["uri"].to_pylist() == uris
    assert info.bytes == 0


def test_index_images__no_signature_in_the_file(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    signed = "https://host/a.jpg?X-Amz-Signature=s3cr3t"
    info = write_manifest(store, images(1), input_uri=signed, counts=Counter())
    assert info.input == "https://host/a.jpg"
    assert b"s3cr3t" not in store.read_bytes("manifest.json")


# --- the command


def index(store: Store, *more: str) -> int:
    """`dinoidd index` from STORE/in to STORE/out."""
    arguments = ["--input", store.child("in").uri, "--output", store.child("out").uri, *more]
    if store.options.endpoint_url:
        arguments += ["--endpoint-url", store.options.endpoint_url]
    return main(["index", *arguments])


def test_index__writes_and_sums_up(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.JPG", "c.txt"):
        store.child("in").write_bytes(name, b"12345")
    assert index(store) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"manifest  {store.uri}/out/manifest (1 files)"
    assert lines[2:5] == ["images    2", "bytes     10", "left out  1 .txt"]
    info = read_manifest_info(store.child("out", "manifest"))
    assert info is not None
    assert info.rows == 2
    assert store.child("out").names() == []


def test_index__refuses_a_finished_manifest(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.child("in").write_bytes("a.png", b"1")
    assert index(store, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["rows"], printed["skipped"]) == (1, {})
    store.child("in").write_bytes("b.png", b"1")
    assert index(store) == 2
    assert "has a manifest of 1 images of" in capsys.readouterr().err
    assert index(store, "--restart", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    store.child("out", "images").write_bytes("part.parquet", b"")
    assert index(store, "--restart") == 2
    assert "holds results of its manifest" in capsys.readouterr().err


def test_index__errors_are_one_sentence(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert index(store) == 2
    error = capsys.readouterr().err
    assert error.startswith("dinoidd index: there is no file or folder ")
    assert error.count("\n") == 1
