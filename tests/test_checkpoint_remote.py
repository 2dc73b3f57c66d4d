"""Checkpoints behind a URL: headers are read in place, weights are downloaded once."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
import torch
from small_models import SMALL, assert_same, drawn_model, publish, small_table

from dinoidd.checkpoint.cache import cache_folder, local_checkpoint, local_model, remote_header
from dinoidd.checkpoint.file import save_checkpoint
from dinoidd.checkpoint.load import load_published
from dinoidd.errors import CheckpointError
from dinoidd.inference.source import ModelSource
from dinoidd.storage import StorageOptions, Store

OPTIONS = StorageOptions()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloads."""
    monkeypatch.setenv("DINOIDD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The small model in dinoidd's own format."""
    save_checkpoint(drawn_model(), small_table(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def remote(saved: Path) -> Iterator[str]:
    """The checkpoint's address in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/model.safetensors", saved.read_bytes())
    yield "memory://models/model.safetensors"
    memory.rm("/models", recursive=True)


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much every read of a stored file brought."""
    counts: list[int] = []
    plain = Store.open_read

    @contextmanager
    def counted(store: Store, name: str):
        with plain(store, name) as file:
            read = file.read
            file.read = lambda size=-1: _count(read(size), counts)
            yield file

    monkeypatch.setattr(Store, "open_read", counted)
    return counts


def _count(data: bytes, counts: list[int]) -> bytes:
    counts.append(len(data))
    return data


def test_describe__remote_header_alone_is_read(
    remote: str, saved: Path, cache: Path, bytes_read: list[int]
) -> None:
    here = ModelSource(checkpoint=str(saved)).describe()
    bytes_read.clear()
    there = ModelSource(checkpoint=remote).describe()
    header = int.from_bytes(saved.read_bytes()[:8], "little")
    assert sum(bytes_read) == 8 + header
    assert header < 0.1 * saved.stat().st_size
    assert not cache.exists()
    assert there == here
    assert (there.config, there.table) == (SMALL, small_table())


def test_load__remote_is_downloaded_once(
    remote: str, saved: Path, cache: Path, bytes_read: list[int]
) -> None:
    assert_same(ModelSource(checkpoint=remote).load(), drawn_model().state_dict())
    assert sum(bytes_read) == saved.stat().st_size
    ModelSource(checkpoint=remote).load()
    assert sum(bytes_read) == saved.stat().st_size
    assert len(list(cache.glob("*.safetensors"))) == 1
    assert not list(cache.glob("*.partial"))


def test_local_checkpoint__another_version_is_downloaded_anew(remote: str) -> None:
    first = local_checkpoint(remote, OPTIONS)
    fsspec.filesystem("memory").pipe_file("/models/model.safetensors", b"another version")
    second = local_checkpoint(remote, OPTIONS)
    assert first != second
    assert second.read_bytes() == b"another version"


def test_local_checkpoint__threads_share_one_download(
    remote: str, saved: Path, bytes_read: list[int]
) -> None:
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(local_checkpoint(remote, OPTIONS)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(set(paths)) == 1
    assert sum(bytes_read) == saved.stat().st_size


def test_local_checkpoint__incomplete_download_is_not_kept(
    remote: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", lambda source, copy, size: copy.write(b"half"))
        with pytest.raises(CheckpointError, match=r"got 4 of [\d,]+ bytes; try again"):
            local_checkpoint(remote, OPTIONS)
    assert not list(cache.glob("*.safetensors"))
    assert local_checkpoint(remote, OPTIONS).stat().st_size > 4


def test_local_checkpoint__path_is_itself(saved: Path, cache: Path) -> None:
    assert local_checkpoint(str(saved), OPTIONS) == saved
    assert not cache.exists()


def test_cache_folder__is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DINOIDD_CACHE", "near")
    assert cache_folder() == tmp_path / "near"
    monkeypatch.delenv("DINOIDD_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "dinoidd"


def test_local_model__published_files_and_directory(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in publish(drawn_model(), tmp_path):
        memory.pipe_file(f"/published/{path.name}", path.read_bytes())
    for name in ("config.json", "model.safetensors", "README.md"):
        memory.pipe_file(f"/hf/dinov3/{name}", name.encode())
    backbone = local_model("memory://published/backbone.pth", OPTIONS)
    head = local_checkpoint("memory://published/head.pth", OPTIONS)
    model = load_published(SMALL, backbone, head, new_classifier=False)
    assert_same(model, drawn_model().state_dict())
    folder = local_model("memory://hf/dinov3/", OPTIONS)
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        "config.json": "config.json",
        "model.safetensors": "model.safetensors",
    }
    assert local_model("memory://hf/dinov3", OPTIONS).name.endswith("-dinov3")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("memory://models/nothing.safetensors", "no such checkpoint: memory://models/nothing"),
        ("nowhere/nothing.safetensors", "no such checkpoint: nowhere/nothing.safetensors"),
        ("nothing.safetensors", "no such checkpoint: nothing.safetensors"),
        ("", "an empty address|no such checkpoint"),
        ("xyz://models/m.safetensors", "xyz:// is no known kind of address"),
    ],
)
def test_remote_header__cannot_be_found(uri: str, told: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(told) if "|" not in told else told):
        remote_header(uri, OPTIONS)


def test_local_model__remote_folder_without_a_model() -> None:
    with pytest.raises(CheckpointError, match=r"holds neither config\.json nor"):
        local_model("memory://nothing/here", OPTIONS)


class Signed(http.server.BaseHTTPRequestHandler):
    """Serves one file, and only with its signature, as object stores do for a limited time."""

    content = b""
    signature = "Policy=eyJ~a&Signature=" + "x" * 300 + "/y&Key-Pair-Id=K"

    def do_GET(self) -> None:
        if self.path != f"/weights/model.safetensors?{self.signature}":
            self.send_error(403)
            return
        first, last = 0, len(self.content) - 1
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.content[first : last + 1])

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def web(saved: Path) -> Iterator[str]:
    """The address, without its signature, of a web server that has the checkpoint."""
    Signed.content = saved.read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Signed)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/weights/model.safetensors"
    server.shutdown()
    thread.join()
    server.server_close()


def test_model_source__signed_web_address(web: str, cache: Path) -> None:
    source = ModelSource(checkpoint=f"{web}?{Signed.signature}")
    assert source.describe().config == SMALL
    assert_same(source.load(), drawn_model().state_dict())
    (file,) = cache.glob("*.safetensors")
    assert file.name.endswith("-model.safetensors")


def test_model_source__signature_is_not_told(web: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelSource(checkpoint=f"{web}?Signature=secret").describe()
    assert web in str(caught.value)
    assert "secret" not in str(caught.value)


def test_model_source__from_s3(s3, saved: Path) -> None:
    bucket = s3.new_bucket()
    s3.client().upload_file(str(saved), bucket, "models/model.safetensors")
    uri = f"s3://{bucket}/models/model.safetensors"
    source = ModelSource(checkpoint=uri, storage=s3.options, dtype="bfloat16")
    assert source.describe().weights == ModelSource(checkpoint=str(saved)).describe().weights
    assert source.load().adapter.up.weight.dtype == torch.bfloat16
