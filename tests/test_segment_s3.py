"""The job from bucket to bucket, through the command line, on a real S3 server."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import S3
from images import BROKEN, GOOD, MAX_BYTES, MAX_PIXELS, write_plain
from s3server import ACCESS_KEY, SECRET_KEY
from segment_runs import TABLE, check_mask, proof, rows_of, save_model

from dinoidd.cli import main
from dinoidd.data.manifest import index_images
from dinoidd.segment import job
from dinoidd.storage import Store

FORBIDDEN, DELETED = "secret.png", "deleted.png"
FILES = {**GOOD, **{name: s for name, s in BROKEN.items() if name != "heavy.bmp"}}


def dinoidd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own: credentials are read once in a process."""
    return subprocess.run(
        [sys.executable, "-m", "dinoidd", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture
def closed_server() -> Iterator[str]:
    """A web server that lets nobody in."""

    class Closed(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Closed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fill_bucket(s3: S3, web: str) -> str:
    """The samples, a list of them with one foreign address, and a checkpoint; returns its name."""
    bucket, client = s3.new_bucket(), s3.client()
    for name, sample in FILES.items():
        client.put_object(Bucket=bucket, Key=f"in/{name}", Body=sample.make())
    client.put_object(Bucket=bucket, Key=f"in/{DELETED}", Body=GOOD["plain.png"].make())
    listed = [*FILES, DELETED, f"{web}/{FORBIDDEN}?X-Amz-Signature=hush"]
    client.put_object(Bucket=bucket, Key="in/list.txt", Body="\n".join(listed).encode())
    return bucket


def test_segment__from_bucket_to_bucket(s3: S3, closed_server: str, tmp_path: Path) -> None:
    bucket, client = fill_bucket(s3, closed_server), s3.client()
    model = save_model(tmp_path / "model.safetensors")
    client.upload_file(str(model), bucket, "models/model.safetensors")
    source, output = f"s3://{bucket}/in/list.txt", f"s3://{bucket}/runs/1"
    index_images(source, Store.open(output, s3.options), s3.options)
    client.delete_object(Bucket=bucket, Key=f"in/{DELETED}")
    command = [
        *("segment", "--input", source, "--output", output, "--endpoint-url", s3.endpoint_url),
        *("--checkpoint", f"s3://{bucket}/models/model.safetensors", "--rows-per-chunk", 8),
        *("--batch-size", 4, "--rows-per-file", 16),
        *("--max-pixels", MAX_PIXELS, "--max-bytes", MAX_BYTES),
    ]
    ran = dinoidd(*command, DINOIDD_CACHE=str(tmp_path / "cache"))
    assert ran.returncode == 0, ran.stderr
    rows = rows_of(output, s3.options)
    assert [row["uri"] for row in rows[: len(FILES)]] == [f"s3://{bucket}/in/{n}" for n in FILES]
    for (name, sample), row in zip(FILES.items(), rows, strict=False):
        assert row["error_kind"] == sample.kind, (name, row["error"])
        if sample.kind is None:
            assert check_mask(row, TABLE.fields).shape == sample.size
    assert [row["error_kind"] for row in rows[len(FILES) :]] == ["missing", "forbidden"]
    assert f"in/{DELETED} cannot be read: there is no such object" in rows[-2]["error"]
    assert proof(output, s3.options).ok == len(GOOD)
    keys = [o["Key"] for o in client.list_objects_v2(Bucket=bucket, Prefix="runs/")["Contents"]]
    assert not [key for key in keys if "_staging" in key]
    assert "runs/1/_SUCCESS" in keys
    again = dinoidd(*command)
    assert again.returncode == 0
    assert f"{output} was finished before" in again.stdout
    texts = [ran.stdout, ran.stderr, again.stdout, again.stderr, rows[-1]["error"]]
    files = [client.get_object(Bucket=bucket, Key=k)["Body"].read() for k in keys]
    assert not [text for text in texts if SECRET_KEY in text or ACCESS_KEY in text]
    assert not [key for key, data in zip(keys, files, strict=True) if SECRET_KEY.encode() in data]
    assert not [key for key, data in zip(keys, files, strict=True) if ACCESS_KEY.encode() in data]
    assert "hush" not in "".join(texts), "a signature is a secret too"
    assert rows[-1]["uri"] == f"{closed_server}/{FORBIDDEN}"
    signed = [key for key, data in zip(keys, files, strict=True) if b"hush" in data]
    assert [key for key in signed if "/manifest/" not in key] == [], "reading needs it, no one else"


def refused(*arguments: object, **environment: str) -> str:
    """The one sentence of a command that cannot start."""
    ran = dinoidd("segment", "--preset", "tiny", *arguments, **environment)
    sentences = [line for line in ran.stderr.splitlines() if not line[:2].isdecimal()]
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert len(sentences) == 1, ran.stderr
    assert sentences[0].startswith("dinoidd segment: ")
    assert "Ray" not in ran.stderr
    return sentences[0]


def test_segment__wrong_credentials(s3: S3, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    output = ["--output", tmp_path / "out", "--endpoint-url", s3.endpoint_url]
    said = refused("--input", f"s3://{bucket}/in", *output, AWS_SECRET_ACCESS_KEY="wrong-hush")
    assert f"s3://{bucket}/in cannot be" in said
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said
    assert "hush" not in said
    said = refused("--input", f"s3://{bucket}/in", *output, AWS_ACCESS_KEY_ID="nobody")
    assert "the store does not know the access key" in said or "do not fit" in said


def test_segment__output_with_wrong_credentials(s3: S3, tmp_path: Path) -> None:
    write_plain(tmp_path / "in", 1)
    said = refused(
        *("--input", tmp_path / "in", "--output", f"s3://{s3.new_bucket()}/out"),
        *("--endpoint-url", s3.endpoint_url),
        AWS_SECRET_ACCESS_KEY="wrong",
    )
    assert "the output s3://" in said
    assert "cannot be written to" in said


@pytest.fixture
def refused_here(
    s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """The same in this process, where Ray must not be started."""

    def fail(*_: object) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr(job.cluster, "connect", fail)

    def refused_here(*arguments: object) -> str:
        server = ["--endpoint-url", s3.endpoint_url]
        assert main(["segment", *map(str, arguments), *server]) == 2
        lines = capsys.readouterr().err.splitlines()
        (said,) = (line for line in lines if not line[:2].isdecimal())
        return said

    return refused_here


def test_segment__no_such_bucket(refused_here: Callable[..., str], tmp_path: Path) -> None:
    write_plain(tmp_path / "in", 1)
    tiny = ["--preset", "tiny"]
    said = refused_here(*tiny, "--input", "s3://no-such-bucket/in", "--output", tmp_path / "out")
    assert "there is no bucket 'no-such-bucket' on this store" in said
    said = refused_here(*tiny, "--input", tmp_path / "in", "--output", "s3://no-such-bucket/out")
    assert "the output s3://no-such-bucket/out cannot be written to" in said
    assert "there is no bucket 'no-such-bucket' on this store" in said


def test_segment__empty_prefix(s3: S3, refused_here: Callable[..., str], tmp_path: Path) -> None:
    nothing = f"s3://{s3.new_bucket()}/nothing"
    output = ["--output", tmp_path / "out", "--preset", "tiny"]
    assert f"there is no file or folder {nothing}" in refused_here("--input", nothing, *output)


def test_segment__missing_checkpoint(
    s3: S3, refused_here: Callable[..., str], tmp_path: Path
) -> None:
    checkpoint = f"s3://{s3.new_bucket()}/none.safetensors"
    paths = ["--input", write_plain(tmp_path / "in", 1), "--output", tmp_path / "out"]
    said = refused_here(*paths, "--checkpoint", checkpoint)
    assert said == f"dinoidd segment: no such checkpoint: {checkpoint}"
