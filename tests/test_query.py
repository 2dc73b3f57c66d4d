import csv
import io
import json
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from conftest import S3
from synthetic_output import SyntheticOutput

from dinoidd.cli import main
from dinoidd.output.query import open_query
from dinoidd.output.reader import RunReader
from dinoidd.storage import StorageOptions, Store

EIGHT_MB = 8_000_000


class CountingFile(io.FileIO):
    """A local file that adds up what is read from it."""

    total = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        CountingFile.total += len(data)
        return data


class CountingFiles(pa.fs.FSSpecHandler):
    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(CountingFile(path), mode="r")


@pytest.fixture
def run(tmp_path: Path) -> SyntheticOutput:
    return SyntheticOutput(tmp_path)


def query(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What `dinoidd query` prints; it must succeed."""
    status = main(["query", *map(str, args)])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def failure(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What it complains about, with exit status 2 and nothing on stdout."""
    status = main(["query", *map(str, args)])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    return err


def test_query__pipe_is_csv(run, capsys):
    sql = "SELECT status, error_kind, count(*) AS n FROM images GROUP BY ALL ORDER BY ALL"
    assert query(capsys, run.out, sql) == (
        "status,error_kind,n\nerror,missing,1\nerror,truncated,1\nok,,98\n"
    )


def test_query__terminal_is_table(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    sql = "SELECT image_id, confidence, error FROM images WHERE image_id IN (3, 4)"
    assert query(capsys, run.out, sql).splitlines() == [
        "image_id  confidence  error",
        "────────  ──────────  " + "─" * len("there is no such file"),
        "       3              there is no such file",
        "       4      0.5400",
        "(2 rows)",
    ]


def test_query__table_fits_the_terminal(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = query(capsys, run.out, "SELECT uri, pixels FROM images LIMIT 2", "--format", "table")
    assert max(map(len, out.splitlines())) == 60
    assert "…" in out


def test_query__table_ends_at_100_rows(run, capsys):
    sql = "SELECT a.image_id FROM images a, images b"
    lines = query(capsys, run.out, sql, "--format", "table").splitlines()
    assert len(lines) == 2 + 100 + 1
    assert lines[-1] == "(first 100 rows; --format csv gives all)"


def test_query__mask_is_shortened(run, capsys):
    out = query(capsys, run.out, "SELECT mask.bytes AS png, mask FROM images LIMIT 1")
    (row,) = csv.DictReader(io.StringIO(out))
    size = len(run.row(0)["mask"]["bytes"])
    assert row["png"] == f"<PNG, {size} bytes>"
    assert json.loads(row["mask"]) == {"bytes": f"<PNG, {size} bytes>", "path": None}


def test_query__json(run, capsys):
    sql = "SELECT image_id, fraction, confidence, error FROM images ORDER BY 1 LIMIT 2"
    rows = json.loads(query(capsys, run.out, sql, "--format", "json"))
    assert [r["image_id"] for r in rows] == [0, 1]
    assert rows[1]["confidence"] == 0.51  # float32 digits, not 0.5099999904632568
    assert rows[1]["fraction"]["sky"] == pytest.approx(run.row(1)["fraction"]["sky"])
    assert rows[0]["error"] is None


def test_query__json_without_rows_or_numbers(run, capsys):
    sql = "SELECT image_id FROM images WHERE false"
    assert json.loads(query(capsys, run.out, sql, "--format", "json")) == []
    sql = "SELECT 'nan'::DOUBLE AS a, [1, 2] AS b, DATE '2026-01-02' AS c, 1.5 AS d"
    (row,) = json.loads(query(capsys, run.out, sql, "--format", "json"))
    assert row == {"a": None, "b": [1, 2], "c": "2026-01-02", "d": 1.5}


def test_query__parquet_file_has_masks_and_integers(run, capsys, tmp_path):
    sql = "SELECT image_id, mask, sum(pixels.road) OVER () AS road FROM images ORDER BY 1"
    assert query(capsys, run.out, sql, "--to", tmp_path / "x.parquet") == ""
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["mask"][0].as_py() == run.row(0)["mask"]
    assert table.schema.field("road").type == pa.int64()
    assert list(tmp_path.glob(".x*")) == []


def test_query__to_takes_its_format_from_the_suffix(run, capsys, tmp_path):
    assert query(capsys, run.out, "SELECT 1 AS a", "--to", tmp_path / "x.json") == ""
    assert json.loads((tmp_path / "x.json").read_text()) == [{"a": 1}]


def test_query__manifest_joins(run, capsys):
    sql = "SELECT count(*) AS n FROM manifest JOIN images USING (image_id, uri)"
    assert query(capsys, run.out, sql) == "n\n100\n"


def test_query__sql_from_stdin(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT max(image_id) AS m\nFROM images;\n"))
    assert query(capsys, run.out, "-") == "m\n99\n"


def test_query__unfinished_run_is_noted(tmp_path, capsys):
    run = SyntheticOutput(tmp_path, finished=False)
    run.part(64).unlink()
    assert main(["query", str(run.out), "SELECT count(*) AS n FROM images"]) == 0
    out, err = capsys.readouterr()
    assert out == "n\n64\n"
    assert err == (
        f"note: the run in {run.out} is not finished (no _SUCCESS): 64 of 100 images so far\n"
    )


def test_query__files_being_written_are_left_alone(run, capsys):
    (run.out / "images" / "part-000000000100-000000000164.parquet.tmp").write_bytes(b"half")
    assert query(capsys, run.out, "SELECT count(*) AS n FROM images") == "n\n100\n"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "SELECT roads FROM images",
            'the query fails: Binder Error: Referenced column "roads" not',
        ),
        ("SELEC 1", 'the query fails: Parser Error: syntax error at or near "SELEC"'),
        ("SELECT 1 FROM pictures", "the query fails: Catalog Error: Table with name pictures does"),
        ("SELECT error('boom') FROM images", "the query fails: Invalid Input Error: boom"),
        ("DROP VIEW images", "the query holds DROP; give one SELECT: outputs are only read here"),
        ("COPY images TO 'x.csv'", "the query holds COPY; give one SELECT"),
        ("SELECT 1; DELETE FROM images", "the query holds SELECT and DELETE; give one SELECT"),
        ("", "the query holds no statement; give one SELECT"),
    ],
)
def test_query__bad_sql_is_one_sentence(run, capsys, sql, message):
    error = failure(capsys, run.out, sql)
    assert error.startswith(f"dinoidd query: {message}")
    assert error.count("\n") == 1


def test_query__parquet_needs_a_file(run, capsys):
    assert failure(capsys, run.out, "SELECT 1", "--format", "parquet") == (
        "dinoidd query: --format parquet is for files: add --to FILE.parquet\n"
    )


def test_query__unknown_suffix(run, capsys):
    assert failure(capsys, run.out, "SELECT 1", "--to", "x.xlsx") == (
        "dinoidd query: --to x.xlsx: add --format, or a suffix .csv, .json or .parquet\n"
    )


def test_query__unwritable_file(run, capsys, tmp_path):
    to = tmp_path / "nowhere" / "x.csv"
    assert failure(capsys, run.out, "SELECT 1", "--to", to) == (
        f"dinoidd query: {to} cannot be written: No such file or directory\n"
    )


def test_query__no_such_output(capsys, tmp_path):
    assert failure(capsys, tmp_path / "x", "SELECT 1") == (
        f"dinoidd query: there is no run in {tmp_path / 'x'}: neither run.json nor manifest/ nor "
        "images/; give the folder that was --output of `dinoidd segment`\n"
    )


def test_query__no_images_yet(tmp_path, capsys):
    run = SyntheticOutput(tmp_path, images=1, finished=False)
    run.part(0).unlink()
    assert failure(capsys, run.out, "SELECT 1") == (
        f"dinoidd query: {run.out} has no images yet: the run has written none, ask again later\n"
    )


def test_query__first_file_is_no_parquet(run, capsys):
    run.part(0).write_bytes(b"not parquet at all")
    error = failure(capsys, run.out, "SELECT 1")
    assert error.startswith(f"dinoidd query: {run.out}/images cannot be read: ")


def test_query__file_of_another_program(run, capsys):
    pq.write_table(pa.table({"image_id": [1]}), run.part(0))
    assert failure(capsys, run.out, "SELECT 1") == (
        f"dinoidd query: {run.part(0)} was not written by dinoidd: it holds no class table\n"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(pixels.road), avg(fraction.sky) FROM images",
        "SELECT status, count(*) FROM images GROUP BY ALL",
        "SELECT uri, confidence FROM images WHERE status = 'ok' ORDER BY fraction.sky LIMIT 3",
    ],
)
def test_query__never_reads_masks_that_it_is_not_asked_for(tmp_path, capsys, monkeypatch, sql):
    run = SyntheticOutput(tmp_path, images=256, per_file=128, height=256, width=512, noise=True)
    files = pa.fs.PyFileSystem(CountingFiles(fsspec.filesystem("file")))
    monkeypatch.setattr(Store, "arrow_path", lambda self: (files, self.uri))
    assert sum(p.stat().st_size for p in run.out.glob("images/*")) > EIGHT_MB
    CountingFile.total = 0
    query(capsys, run.out, sql)
    assert 0 < CountingFile.total < EIGHT_MB / 20
    CountingFile.total = 0
    query(capsys, run.out, "SELECT max(octet_length(mask.bytes)) FROM images")
    assert CountingFile.total > EIGHT_MB  # the count does see masks


def test_query__one_mask_reads_one_row_group(tmp_path, capsys, monkeypatch):
    run = SyntheticOutput(tmp_path, images=256, per_file=128, height=256, width=512, noise=True)
    files = pa.fs.PyFileSystem(CountingFiles(fsspec.filesystem("file")))
    monkeypatch.setattr(Store, "arrow_path", lambda self: (files, self.uri))
    total = sum(p.stat().st_size for p in run.out.glob("images/*"))
    CountingFile.total = 0
    query(capsys, run.out, "SELECT mask FROM images WHERE image_id IN (200, 201)")
    assert CountingFile.total < total / 4 * 1.2  # one of four


def test_query__s3(run, s3: S3, capsys):
    bucket = s3.new_bucket()
    sql = "SELECT status, count(*) AS n FROM images GROUP BY ALL ORDER BY ALL"
    uri = run.upload(s3.client(), bucket, "runs/a")
    endpoint = "--endpoint-url", s3.endpoint_url
    assert query(capsys, uri, sql, *endpoint) == "status,n\nerror,2\nok,98\n"
    assert failure(capsys, f"s3://{bucket}/runs/b", sql, *endpoint).startswith(
        f"dinoidd query: there is no run in s3://{bucket}/runs/b: "
    )


def test_query__wrong_credentials(s3: S3, capsys, monkeypatch):
    bucket = s3.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    error = failure(capsys, f"s3://{bucket}/a", "SELECT 1", "--endpoint-url", s3.endpoint_url)
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error
    assert "not-the-secret" not in error


@pytest.mark.parametrize("folder", ["plain", "it's", "[a] *star?"])
def test_query__both_readers_say_the_same(tmp_path, capsys, monkeypatch, folder):
    run = SyntheticOutput(tmp_path / folder)
    queries = (
        "DESCRIBE images",
        "DESCRIBE manifest",
        "FROM images ORDER BY image_id",
        "FROM manifest",
    )
    local = [query(capsys, run.out, sql) for sql in queries]
    files = pa.fs.PyFileSystem(CountingFiles(fsspec.filesystem("file")))
    monkeypatch.setattr(Store, "arrow_path", lambda self: (files, self.uri))
    assert [query(capsys, run.out, sql) for sql in queries] == local
    assert local[2].count("\n") == 101


def test_query__local_scan_leaves_masks_out(run):
    sql = "EXPLAIN SELECT sum(pixels.road) FROM images WHERE status = 'ok'"
    with open_query(RunReader(str(run.out), StorageOptions())) as connection:
        plan = connection.sql(sql).fetchall()[0][1]
        assert "pixels" in plan
        assert "mask" not in plan
        assert "mask" in connection.sql("EXPLAIN SELECT mask.bytes FROM images").fetchall()[0][1]


def test_duckdb__knows_nothing_of_the_network():
    """What query.py relies on: httpfs is not built in, so s3:// must come through Arrow."""
    loaded = duckdb.sql("SELECT extension_name FROM duckdb_extensions() WHERE loaded").fetchall()
    assert ("httpfs",) not in loaded
