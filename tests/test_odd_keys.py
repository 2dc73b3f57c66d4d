"""Object keys are names that strangers chose: they never become paths of ours, and none is lost."""

import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import S3
from image_files import encoded, picture
from synthetic_output import SyntheticOutput

from dinoidd.cli import main
from dinoidd.data.manifest import FOLDER, index_images
from dinoidd.segment.layout import Layout
from dinoidd.segment.stages import ReadImages
from dinoidd.storage import Store, printable, public

KEYS = [
    "in/../up.png",
    "in/../../../../../../tmp/dinoidd-escaped.png",
    "in/./here.png",
    "in//twice.png",
    "/etc/absolute.png",
    "in/a b.png",
    "in/a#b?.png",
    "in/100%.png",
    "in/a%2Fb.png",
    "in/%2e%2e/c.png",
    "in/back\\..\\slash.png",
    "in/caf\u00e9.png",
    "in/cafe\u0301.png",
    "in/größe-日本-🚗.png",
    "in/_under.png",
    "in/-dash.png",
    "in/CON.png",
    "in/con.png",
    "in/line\nbreak.png",
    "in/tab\tand\x7f.png",
    "in/quote'\"`$(id).png",
    "in/x.png/y.png",
    "in/" + "/".join(["d" * 200] * 5) + "/" + "k" * 11 + ".png",
    "in/" + "n" * 1017 + ".png",
]
assert max(len(key.encode()) for key in KEYS) == 1024
FORMATS = ("png", "coco", "cityscapes", "hugging-face", "fiftyone")


@pytest.fixture
def bucket(s3: S3) -> str:
    """One small image under every key."""
    name, client = s3.new_bucket(), s3.client()
    for seed, key in enumerate(KEYS):
        client.put_object(Bucket=name, Key=key, Body=encoded(picture(8, 10, seed), "PNG"))
    return name


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory deep enough to see who climbs out of it."""
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    return deep


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


def escaped() -> bool:
    return os.path.lexists("/tmp/dinoidd-escaped.png") or os.path.lexists("/etc/absolute.png")


@pytest.fixture
def listed(bucket: str, tmp_path: Path) -> Path:
    """All of them as a list, which also has those that a listing leaves out as hidden."""
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": [f"s3://{bucket}/{key}" for key in KEYS]}), path)
    return path


def test_read__every_key_has_its_row(s3: S3, bucket: str, listed: Path, tmp_path: Path) -> None:
    out = Store.open(str(tmp_path / "out"))
    assert index_images(f"s3://{bucket}", out, s3.options).skipped == {"(hidden)": 3}
    rows = index_images(str(listed), out, s3.options).rows
    assert rows == len(KEYS)
    read = ReadImages(
        manifest=out.child(FOLDER),
        manifest_sha256="",
        layout=Layout(rows=rows, rows_per_chunk=rows, rows_per_file=rows),
        image_size=32,
        threads=4,
        max_pixels=1000,
        max_bytes=10_000,
        storage=s3.options,
    )
    table = read(0).to_pylist()
    assert {row["uri"] for row in table} == {f"s3://{bucket}/{key}" for key in KEYS}
    assert [row["error"] for row in table if row["error_kind"]] == []
    assert {(row["height"], row["width"]) for row in table} == {(8, 10)}


@pytest.mark.parametrize("by", ["list", "folder"])
def test_predict__stays_in_its_folder(
    s3: S3, bucket: str, listed: Path, sandbox: Path, tmp_path: Path, by: str
) -> None:
    source = str(listed) if by == "list" else f"s3://{bucket}"
    command = ["predict", source, "--output", "out", "--preset", "tiny", "--image-size", "32"]
    assert main([*command, "--endpoint-url", s3.endpoint_url]) == 0
    assert files(tmp_path) - {listed} == files(sandbox / "out")
    assert not escaped()
    folders = {path.parent for path in files(sandbox / "out") if path.name == "original.png"}
    assert len(folders) == len(KEYS) - (3 if by == "folder" else 0)


class OddOutput(SyntheticOutput):
    """A run over a bucket with those keys."""

    bucket = "bucket"

    def uri(self, image_id: int) -> str:
        return f"s3://{self.bucket}/{KEYS[image_id]}"


@pytest.fixture
def output(tmp_path: Path, s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> OddOutput:
    monkeypatch.setattr(OddOutput, "bucket", bucket)
    made = OddOutput(tmp_path / "run", images=len(KEYS), height=8, width=10, errors={})
    for path in files(tmp_path / "run" / "in"):
        path.unlink()
    return made


@pytest.mark.parametrize("format", FORMATS)
def test_export__stays_in_its_folder(
    output: OddOutput, s3: S3, sandbox: Path, tmp_path: Path, format: str
) -> None:
    before = files(tmp_path)
    command = ["export", str(output.out), "--format", format, "--to", "to"]
    status = main([*command, "--endpoint-url", s3.endpoint_url])
    assert status == 0
    assert files(tmp_path) - before == files(sandbox / "to")
    assert not escaped()
    with (sandbox / "to" / "index.csv").open(newline="") as index:
        rows = list(csv.DictReader(index))
    assert len({row["uri"] for row in rows}) == len(KEYS)
    if format != "hugging-face":
        assert len({row["file"].casefold() for row in rows}) == len(KEYS), "each its own file"
    for row in rows:
        assert (sandbox / "to" / row["file"]).resolve().is_relative_to(sandbox / "to")
        assert (sandbox / "to" / row["file"]).is_file()
    if format == "coco":
        told = json.loads((sandbox / "to" / "annotations" / "panoptic.json").read_text())
        names = [image["file_name"] for image in told["images"]]
        assert not [n for n in names if n.startswith("/") or ".." in n.split("/")]


def test_show_and_report__stay_in_their_folder(
    output: OddOutput, s3: S3, sandbox: Path, tmp_path: Path
) -> None:
    before = files(tmp_path)
    where = ["--endpoint-url", s3.endpoint_url]
    assert main(["show", str(output.out), "--grid", "6x4", "--to", "sheet.png", *where]) == 0
    assert main(["report", str(output.out), "--to", "report.html", *where]) == 0
    new = files(tmp_path) - before
    assert new == {sandbox / "sheet.png", sandbox / "report.html"}
    assert not escaped()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/a?X-Amz-Signature=s.png", "s3://b/a?X-Amz-Signature=s.png"),
        ("https://h/a.png?id=5&size=large", "https://h/a.png?id=5&size=large"),
        ("https://me:pw@h:1/a.png?id=5", "https://h:1/a.png?id=5"),
        ("https://h/a.png?X-Amz-Date=1&X-Amz-Signature=hush", "https://h/a.png"),
        ("https://h/a.png?sv=2024&sp=r&sig=hush", "https://h/a.png"),
        ("https://h/a.png?GoogleAccessId=x&Expires=1&Signature=hush", "https://h/a.png"),
        ("https://h/a.png?id=5&access_token=hush", "https://h/a.png"),
        ("https://h/a.png?Policy=p&Key-Pair-Id=hush", "https://h/a.png"),
        ("https://h/a.png?api_key=hush#part", "https://h/a.png"),
        ("gs://me:pw@b/x.png", "gs://b/x.png"),
    ],
)
def test_public__has_no_secret(uri: str, expected: str) -> None:
    assert public(uri) == expected
    assert public(expected) == expected


def test_printable__escapes_what_steers_a_terminal() -> None:
    assert printable("größe 日本 \u0301🚗") == "größe 日本 \u0301🚗"
    assert printable("a\nb\x1b[31m\u202ec") == "a\\nb\\x1b[31m\\u202ec"
