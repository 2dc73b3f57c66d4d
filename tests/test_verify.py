import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import S3
from PIL import Image
from synthetic_output import TABLE, Row, SyntheticOutput

from dinoidd.classes import IDD, ClassTable
from dinoidd.cli import main
from dinoidd.errors import OutputError, StorageError
from dinoidd.output.mask import encode_mask
from dinoidd.output.reader import RunReader
from dinoidd.output.verify import Report, verify
from dinoidd.storage import StorageOptions

FIRST, SECOND = (
    "part-000000000000-000000000064.parquet",
    "part-000000000064-000000000100.parquet",
)


@pytest.fixture
def run(tmp_path: Path) -> SyntheticOutput:
    return SyntheticOutput(tmp_path)


def report(run: SyntheticOutput, sample: int | None = None) -> Report:
    return verify(RunReader(str(run.out), StorageOptions()), sample=sample)


def sentences(run: SyntheticOutput, sample: int | None = None) -> list[str]:
    return report(run, sample).findings.sentences()


def rows_of(run: SyntheticOutput, start: int = 0) -> list[Row]:
    return [run.row(i) for i in range(start, run.stop_of(start))]


def change(**values: object):
    return lambda row: row.update(values)


def test_verify__whole_run(run):
    seen = report(run)
    assert seen.findings.sentences() == []
    assert (seen.images, seen.rows, seen.ok, seen.masks) == (100, 100, 98, 98)
    assert seen.errors == {"missing": 1, "truncated": 1}


def test_verify__noise_and_many_files(tmp_path):
    assert sentences(SyntheticOutput(tmp_path, images=130, per_file=10, noise=True)) == []


def test_verify__run_ids_may_differ(run):
    table = pq.read_table(run.part(64))
    metadata = table.schema.metadata | {b"dinoidd.run_id": b"run-2"}
    pq.write_table(table.replace_schema_metadata(metadata), run.part(64), row_group_size=64)
    assert sentences(run) == []


# Exactly once


def test_verify__missing_row(run):
    run.write_part(0, rows_of(run)[:-1])
    assert sentences(run) == [
        f"image 63 has no row ({run.uri(63)})",
        "run.json counts images 100, the rows 99",
        "run.json counts ok 98, the rows 97",
    ]


def test_verify__missing_file(run):
    run.part(64).unlink()
    assert sentences(run)[:4] == [
        *(f"image {i} has no row ({run.uri(i)})" for i in (64, 65, 66)),
        "... and 33 more like this (image without a row)",
    ]


def test_verify__doubled_row(run):
    rows = rows_of(run)
    run.write_part(0, [*rows, rows[5]])
    assert sentences(run)[0] == "image 5 has 2 rows"


def test_verify__overlapping_files(run):
    run.part(0).with_name("part-000000000000-000000000002.parquet").write_bytes(
        run.part(0).read_bytes()
    )
    found = sentences(run)
    assert found[0] == (
        "part-000000000000-000000000002.parquet has a row of image 2, which belongs to another file"
    )
    assert "image 0 has 2 rows" in found


def test_verify__unknown_id(run):
    run.edit(64, change(image_id=100))
    run.edit(5, change(image_id=-1))
    assert sentences(run) == [
        f"{FIRST} has a row of image -1, but the manifest ends with 99",
        f"{SECOND} has a row of image 100, but the manifest ends with 99",
        f"image 5 has no row ({run.uri(5)})",
        f"image 64 has no row ({run.uri(64)})",
    ]


def test_verify__row_in_the_wrong_file(run):
    first, second = rows_of(run), rows_of(run, 64)
    first[0], second[0] = second[0], first[0]
    run.write_part(0, first)
    run.write_part(64, second)
    assert sentences(run) == [
        f"{FIRST} has a row of image 64, which belongs to another file",
        f"{SECOND} has a row of image 0, which belongs to another file",
    ]


def test_verify__other_uri(run):
    run.edit(7, change(uri="/elsewhere/7.png"))
    assert sentences(run) == [f"image 7 is /elsewhere/7.png, in the manifest {run.uri(7)}"]


def test_verify__order_within_a_file_is_free(run):
    run.write_part(0, rows_of(run)[::-1])
    assert sentences(run) == []


# One row against itself


def without(name: str, **values: object):
    """Take from a struct, or set in it."""
    return lambda row: row[name].update(values)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (change(status="maybe"), "has status 'maybe', neither 'ok' nor 'error'"),
        (change(mask=None), "is ok, but has no mask"),
        (change(error="oh"), "is ok, but has error 'oh'"),
        (change(error_kind="missing"), "is ok, but has error_kind 'missing'"),
        (change(height=0), "is ok, but its size is 32x0"),
        (change(width=None), "is ok, but its size is 0x24"),
        (without("pixels", sky=None), "has no number in pixels.sky"),
        (without("pixels", sky=-1), "has no number in pixels.sky"),
        (change(pixels=None), "has no number in pixels.road"),
        (without("pixels", sky=0), "has 530 pixels counted, but 32x24 are 768"),
        (without("fraction", sky=0.5), "has fraction.sky 0.5, but pixels.sky make 0.309896"),
        (change(fraction=None), "has fraction.road nan, but pixels.road make 0.666667"),
        (change(confidence=1.5), "has confidence 1.5, not one in 0 to 1"),
        (change(entropy=-0.1), "has entropy -0.1, not one in 0 to 1"),
        (change(margin=None), "has margin nan, not one in 0 to 1"),
    ],
)
def test_verify__ok_row(run, edit, sentence):
    run.edit(64, edit)
    assert f"image 64 {sentence}" in sentences(run, sample=0)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (change(error_kind=None), "is an error without error_kind"),
        (change(error=""), "is an error without error"),
        (change(mask={"bytes": b"x", "path": None}), "is an error, but has a mask"),
    ],
)
def test_verify__error_row(run, edit, sentence):
    run.edit(3, edit)
    assert sentences(run)[0] == f"image 3 {sentence}"


def test_verify__many_alike_are_counted(run):
    run.write_part(0, [row | {"margin": 2.0} for row in rows_of(run)])
    assert sentences(run) == [
        *(f"image {i} has margin 2, not one in 0 to 1" for i in (0, 1, 2)),
        "... and 60 more like this (wrong margin)",
    ]
    assert report(run).findings.total == 63


# Masks


def edit_mask(run: SyntheticOutput, mask_HW: np.ndarray, table: ClassTable = TABLE) -> None:
    run.edit(64, without("mask", bytes=encode_mask(mask_HW, table)))


def test_verify__mask_altered(run):
    mask_HW = run.mask(64)
    mask_HW[-1, -1] = 2
    edit_mask(run, mask_HW)
    road = run.row(64)["pixels"]["road"]
    assert sentences(run) == [
        f"image 64: the mask has {road - 1} pixels of road, but pixels.road is {road}"
    ]


def test_verify__mask_truncated(run):
    png = run.row(64)["mask"]["bytes"]
    run.edit(64, without("mask", bytes=png[:-20]))
    (sentence,) = sentences(run)
    assert sentence.startswith(f"image 64: the mask ({len(png) - 20} bytes) is a damaged PNG: ")


def test_verify__mask_is_something_else(run):
    run.edit(64, without("mask", bytes=b"GIF89a"))
    assert sentences(run) == ["image 64: the mask (6 bytes) is not a PNG"]


def test_verify__mask_without_bytes(run):
    run.edit(64, without("mask", bytes=None))
    assert sentences(run) == ["image 64 is ok, but its mask has no bytes"]


def test_verify__mask_without_palette(run):
    png = io.BytesIO()
    Image.fromarray(run.mask(64)).save(png, "PNG")
    run.edit(64, without("mask", bytes=png.getvalue()))
    assert sentences(run) == ["image 64: the mask is a PNG of mode L with 8 bits, not P, 8"]


def test_verify__mask_in_other_colours(run):
    edit_mask(run, run.mask(64), IDD)
    assert sentences(run) == [
        "image 64: the mask's colour of 'traffic light' is (81, 0, 81), not (250, 150, 10)"
    ]


def test_verify__mask_of_another_size(run):
    edit_mask(run, run.mask(64).reshape(48, 16))
    assert sentences(run) == ["image 64 is 32x24, but its mask is 16x48"]


def test_verify__mask_with_unknown_class(run):
    mask_HW = run.mask(64)
    mask_HW[-1] = 25
    edit_mask(run, mask_HW)
    assert sentences(run) == [
        "image 64: the mask has 32 pixels of class 25, but the last class is 3"
    ]


def test_verify__sample_decodes_that_many(run):
    assert report(run, sample=10).masks in range(8, 11)  # two of the images are errors
    assert report(run, sample=0).masks == 0


def test_verify__sample_reads_only_its_row_groups(tmp_path, monkeypatch):
    run = SyntheticOutput(tmp_path, images=640, per_file=640)
    groups = []
    read = pq.ParquetFile.read_row_group

    def spy(self: pq.ParquetFile, group: int, **options: object) -> pa.Table:
        if "mask.bytes" in options.get("columns", []):
            groups.append(group)
        return read(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    assert report(run, sample=1).masks == 1
    assert len(groups) == 1


# Files, metadata and counts


def test_verify__unfinished(tmp_path):
    run = SyntheticOutput(tmp_path, finished=False)
    assert sentences(run) == ["there is no _SUCCESS: the run is not finished"]


def test_verify__file_truncated(run):
    run.part(0).write_bytes(run.part(0).read_bytes()[:-100])
    assert sentences(run)[0].startswith(f"{FIRST} cannot be read: Parquet magic bytes not found")


def test_verify__file_with_broken_pages(run):
    data = bytearray(run.part(0).read_bytes())
    data[4:4000] = bytes(3996)
    run.part(0).write_bytes(data)
    assert sentences(run)[0].startswith(f"{FIRST} cannot be read: ")


def test_verify__another_fingerprint(run):
    run.fingerprint = "e" * 64
    run.write_part(64, rows_of(run, 64))
    assert sentences(run) == [f"{SECOND} has another model fingerprint than {FIRST}"]


def test_verify__another_class_table(run):
    table = ClassTable(name="other", classes=TABLE.classes)
    run.write_part(64, rows_of(run, 64), table)
    assert sentences(run) == [f"{SECOND} has another class table than {FIRST}"]


def rewrite(run: SyntheticOutput, table: pa.Table) -> None:
    pq.write_table(table, run.part(64), row_group_size=64)


def test_verify__no_metadata(run):
    rewrite(run, pq.read_table(run.part(64)).replace_schema_metadata(None))
    assert sentences(run)[:2] == [
        f"{SECOND} has no class table in its metadata",
        f"{SECOND} has no model fingerprint in its metadata",
    ]


def test_verify__column_missing_or_of_another_type(run):
    table = pq.read_table(run.part(64)).drop_columns(["note"])
    index = table.schema.get_field_index("margin")
    rewrite(run, table.set_column(index, "margin", table["margin"].cast(pa.float64())))
    assert sentences(run)[:2] == [
        f"{SECOND} has no column note",
        f"{SECOND} has column margin as double, not float",
    ]


def test_verify__counts_of_run_json(run):
    run.write_run_info(ok=97, errors={"missing": 3})
    assert sentences(run) == [
        "run.json counts ok 97, the rows 98",
        "run.json counts errors {'missing': 3}, the rows {'missing': 1, 'truncated': 1}",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "run.json is not there"),
        ("{}", "run.json has no counts"),
        ("{oh", "{out}/run.json is not JSON: Expecting property name"),
    ],
)
def test_verify__run_json_unusable(run, text, sentence):
    path = run.out / "run.json"
    path.unlink() if text is None else path.write_text(text)
    (found,) = sentences(run)
    assert found.startswith(sentence.replace("{out}", str(run.out)))


def test_verify__manifest_file_is_gone(run):
    info = json.loads((run.out / "manifest" / "manifest.json").read_text())
    (run.out / "manifest" / "manifest.json").write_text(json.dumps(info | {"rows": 101}))
    assert sentences(run)[:2] == [
        "the files of manifest/ hold 100 rows, manifest.json says 101",
        "image 100 has no row",
    ]


def test_verify__manifest_out_of_order(run):
    path = run.out / "manifest" / "part-000000000000.parquet"
    table = pq.read_table(path)
    rows = pa.array([1, 0, *range(2, 100)])
    pq.write_table(table.take(rows), path)
    assert sentences(run)[:2] == [
        "row 0 of the manifest has image_id 1",
        "row 1 of the manifest has image_id 0",
    ]


def test_verify__no_manifest(run):
    (run.out / "manifest" / "manifest.json").unlink()
    with pytest.raises(OutputError) as error:
        report(run)
    assert str(error.value) == f"{run.out} has no finished manifest to compare the rows with"


# The command


def test_command__verified(run, capsys):
    assert main(["verify", str(run.out), "--all"]) == 0
    assert capsys.readouterr().out == (
        f"{run.out}: 100 images, 100 rows, 98 ok, 2 with errors (missing 1, truncated 1); "
        "98 masks decoded\nverified: every image has exactly one row, and all agrees\n"
    )


def test_command__differs(run, capsys):
    rows = rows_of(run)
    run.write_part(0, [*rows, rows[5]])
    assert main(["verify", str(run.out), "--sample", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "NOT verified: 3 differences",
        "- image 5 has 2 rows",
        "- run.json counts images 100, the rows 101",
        "- run.json counts ok 98, the rows 99",
    ]


def test_command__json(run, capsys):
    (run.out / "_SUCCESS").unlink()
    assert main(["verify", str(run.out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "verified": False,
        "output": str(run.out),
        "images": 100,
        "rows": 100,
        "ok": 98,
        "errors": {"missing": 1, "truncated": 1},
        "masks_decoded": 98,
        "differences": 1,
        "differences_by_kind": {"unfinished": 1},
        "sentences": ["there is no _SUCCESS: the run is not finished"],
    }


def test_command__no_such_output(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith(
        f"dinoidd verify: there is no run in {tmp_path / 'x'}: neither run.json nor"
    )


def test_command__bad_sample(run, capsys):
    assert main(["verify", str(run.out), "--sample", "-1"]) == 2
    assert capsys.readouterr().err == (
        "dinoidd verify: --sample -1: a number of images is 0 or more\n"
    )


def test_command__s3(run, s3: S3, capsys):
    uri = run.upload(s3.client(), s3.new_bucket(), "runs/a")
    assert main(["verify", uri, "--endpoint-url", s3.endpoint_url]) == 0
    assert capsys.readouterr().out.startswith(f"{uri}: 100 images, 100 rows, 98 ok")


def test_verify__store_goes_away(run, s3: S3, monkeypatch):
    uri = run.upload(s3.client(), s3.new_bucket(), "runs/a")
    reader = RunReader(uri, s3.options)
    assert reader.parts
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(StorageError) as error:
        verify(reader)
    assert error.value.kind == "credentials"


def test_verify__files_of_another_run(run):
    path = run.out / "run.json"
    info = json.loads(path.read_text()) | {"run_id": "run-2", "fingerprint": run.fingerprint}
    path.write_text(json.dumps(info))
    assert sentences(run) == [f"{FIRST} is of another run: its run_id is not run.json's"]
