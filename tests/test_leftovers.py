"""What killed processes leave half written is removed by the next ones."""

import os
import subprocess
import sys
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import S3
from test_output_file import LAYOUT, SCHEMA, Folders

from dinoidd.segment.output_file import _remove_left_folders
from dinoidd.storage import Store
from dinoidd.upkeep.compact import merge_parts


def test_remove_unfinished__temporary_files_alone(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.remove_unfinished()
    store.child("deep").write_bytes("whole.parquet", b"1")
    kept = [tmp_path / "deep" / "whole.parquet", tmp_path / ".notes.tmp", tmp_path / "a.tmp"]
    for path in kept[1:]:
        path.write_bytes(b"not ours")
    for folder in (tmp_path, tmp_path / "deep"):
        (folder / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
    store.remove_unfinished()
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_remove_unfinished__multipart_uploads_below_the_prefix(s3: S3) -> None:
    bucket, client = s3.new_bucket(), s3.client()
    for key in ("out/images/a", "out/images/b", "other/images/a"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    Store.open(f"s3://{bucket}/out", s3.options).child("images").remove_unfinished()
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["other/images/a"]
    Store.open(f"s3://{bucket}/nothing", s3.options).remove_unfinished()


def test_left_folders__of_dead_processes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"dinoidd-merge-{ended.pid}-x", f"dinoidd-merge-{os.getpid()}-x", "dinoidd-merge-x-y"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(b"half")
    _remove_left_folders()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])


def test_rewrite__works_in_a_folder_that_the_next_one_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed task of `compact` or `retry` left half a gigabyte on its node, for ever."""
    folders = Folders(Store.open(str(tmp_path / "run")))
    for file in range(LAYOUT.files):
        folders.write_chunks_of(file)
        folders.merge(file)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "tmp" / f"dinoidd-merge-{ended.pid}-x").mkdir(parents=True)
    upload, used = Store.upload, []

    def watched(store: Store, local: Path, name: str) -> None:
        used.extend(p.name for p in (tmp_path / "tmp").iterdir())
        upload(store, local, name)

    monkeypatch.setattr(Store, "upload", watched)
    whole = replace(LAYOUT, rows_per_file=27)
    merge_parts(0, old=LAYOUT, new=whole, images=folders.images, schema=SCHEMA)
    assert [name.rpartition("-")[0] for name in used] == [f"dinoidd-merge-{os.getpid()}"]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert folders.images.names() == [whole.file_name(0)]
