"""Storage: the same behaviour on a local folder and on a real S3 server."""

import http.server
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import S3

from dinoidd.errors import ConfigError, OutputError, StorageError
from dinoidd.storage import BRISK, ObjectReader, StorageOptions, Store, normalise, shown
from dinoidd.storage.local import LocalFiles
from dinoidd.storage.uri import split_s3

ODD_NAMES = [
    "a b.png",
    "a#b?.png",
    "100%.png",
    "a%2Fb.png",
    "plus+and&=.png",
    "glob*[x].png",
    "größe-日本-🚗.png",
    "_under.png",
    "quote'\".png",
    "line\nbreak.png",
]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/p/", "s3://b/p"),
        ("s3a://b/a b#c?.png", "s3://b/a b#c?.png"),
        ("/a//b/../c/", "/a/c"),
        ("file:///a/b%20c", "/a/b%20c"),
        ("https://host/x/?sig=a/", "https://host/x/?sig=a/"),
    ],
)
def test_normalise__is_literal(uri: str, expected: str) -> None:
    assert normalise(uri) == expected


def test_normalise__relative_path_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert normalise("out") == f"{tmp_path}/out"


@pytest.mark.parametrize("uri", ["", "s3://", "gs://"])
def test_normalise__without_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"address|names no bucket"):
        normalise(uri)


def test_split_s3__keeps_the_key_exact() -> None:
    assert split_s3("s3://b//x/a?versionId=1#y") == ("b", "/x/a?versionId=1#y")
    arn = "arn:aws:s3:eu-west-1:1:accesspoint/p"
    assert split_s3(f"s3://{arn}/k/l") == (arn, "k/l")


def test_shown__hides_what_signs_a_web_address() -> None:
    assert shown("https://me:pw@h.org:1/a.jpg?X-Amz-Signature=s#f") == "https://h.org:1/a.jpg"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_store__odd_names_survive(store: Store, name: str) -> None:
    store.write_bytes(name, name.encode())
    assert store.read_bytes(name) == name.encode()
    assert ObjectReader(store.options).read(store.uri_of(name)) == name.encode()
    assert store.names() == [name]
    assert [info.uri for info in store.walk()] == [store.uri_of(name)]
    assert store.exists(name)
    store.remove(name)
    assert not store.exists(name)


def test_reader__version_suffix_is_part_of_the_key(s3: S3) -> None:
    bucket = s3.new_bucket()
    s3.client().put_object(Bucket=bucket, Key="a.png?versionId=7", Body=b"odd")
    reader = ObjectReader(s3.options)
    assert reader.read(f"s3://{bucket}/a.png?versionId=7") == b"odd"
    with pytest.raises(StorageError, match="no such object"):
        reader.read(f"s3://{bucket}/a.png")


def test_store__overwrites_lists_and_removes(store: Store) -> None:
    store.write_bytes("b.bin", b"old")
    store.write_bytes("b.bin", b"new")
    store.write_bytes(".hidden", b"")
    store.child("sub", "deep").write_bytes("x.bin", b"123")
    assert store.read_bytes("b.bin") == b"new"
    assert store.names() == ["b.bin"]
    assert [i.size for i in store.walk(starts="sub/")] == [3] or not store.uri.startswith("s3://")
    assert [i.uri for i in store.walk(depth=0)] == [store.uri_of(".hidden"), store.uri_of("b.bin")]
    assert store.is_folder()
    store.remove_all()
    store.remove_all()
    store.remove("b.bin")
    assert (store.names(), store.is_folder()) == ([], False)


def test_remove_all__leaves_neighbours_with_the_same_beginning(store: Store) -> None:
    store.child("part").write_bytes("x", b"1")
    store.child("part-2").write_bytes("x", b"2")
    store.child("part").remove_all()
    assert store.child("part-2").read_bytes("x") == b"2"


def test_remove_all__refuses_a_whole_bucket(s3: S3) -> None:
    bucket = s3.new_bucket()
    store = Store.open(f"s3://{bucket}", s3.options)
    store.write_bytes("kept", b"1")
    with pytest.raises(OutputError, match="refusing to remove all of the bucket"):
        store.remove_all()
    assert store.names() == ["kept"]
    with pytest.raises(OutputError, match="refusing to remove /"):
        Store.open("/").remove_all()


def test_upload__copies_a_local_file(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3_000_000))
    store.upload(source, "copy.bin")
    assert store.read_bytes("copy.bin") == source.read_bytes()


@pytest.mark.parametrize(
    ("objects", "page"), [(25, 10), pytest.param(1_050, 1_000, marks=pytest.mark.slow)]
)
def test_store__pages(s3: S3, monkeypatch: pytest.MonkeyPatch, objects: int, page: int) -> None:
    monkeypatch.setattr("dinoidd.storage.s3.KEYS_PER_REQUEST", page)
    store = Store.open(f"s3://{s3.new_bucket()}/many", s3.options)
    names = [f"{n:05d}.png" for n in range(objects)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: store.write_bytes(name, b""), names))
    assert store.names() == names
    assert [info.uri for info in store.walk()] == [store.uri_of(name) for name in names]
    store.remove_all()
    assert store.names() == []


def test_walk__leaves_out_folder_markers(s3: S3) -> None:
    bucket = s3.new_bucket()
    for key in ("p/", "p/sub/", "p/sub/x.png"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"")
    store = Store.open(f"s3://{bucket}/p", s3.options)
    assert [i.uri for i in store.walk()] == [f"s3://{bucket}/p/sub/x.png"]
    assert store.names() == []


def test_read__size_limit(store: Store) -> None:
    store.write_bytes("ten", b"0123456789")
    reader = ObjectReader(store.options)
    assert reader.read(store.uri_of("ten"), max_bytes=10) == b"0123456789"
    with pytest.raises(StorageError, match="has 10 bytes, more than the limit of 9") as caught:
        reader.read(store.uri_of("ten"), max_bytes=9)
    assert caught.value.kind == "too_large"


def test_read__missing(store: Store) -> None:
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot be read: there is no such") as caught:
            ObjectReader(store.options).read(store.uri_of("nothing.png"))
        assert caught.value.kind == "missing"
        store.write_bytes("something.png", b"")  # a folder that is there changes nothing


def test_read__empty_object(store: Store) -> None:
    store.write_bytes("empty", b"")
    assert ObjectReader(store.options).read(store.uri_of("empty"), max_bytes=1) == b""


def test_pickle__store_and_reader_work_in_another_process(store: Store) -> None:
    store.write_bytes("x", b"seen")
    payload = pickle.dumps((store, ObjectReader(store.options)))
    assert b"testing" not in payload  # the secret key stays in the environment
    code = (
        "import pickle, sys; store, reader = pickle.load(sys.stdin.buffer);"
        "assert store.read_bytes('x') == reader.read(store.uri_of('x')) == b'seen'"
    )
    subprocess.run([sys.executable, "-c", code], input=payload, check=True, timeout=60)


def test_read__works_after_a_fork(store: Store) -> None:
    store.write_bytes("x", b"seen")
    assert store.read_bytes("x") == b"seen"
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read_bytes("x") == b"seen" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_arrow_path__reads_columns_of_a_dataset(store: Store) -> None:
    for number in range(2):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"a": [number], "b": ["x"]}), buffer)
        store.child("rows").write_bytes(f"{number}.parquet", buffer.getvalue().to_pybytes())
    filesystem, path = store.child("rows").arrow_path()
    dataset = ds.dataset(path, filesystem=filesystem, format="parquet")
    assert sorted(dataset.to_table(columns=["a"])["a"].to_pylist()) == [0, 1]


# --- atomic writes


def test_write__failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "out"))
    store.write_bytes("x.bin", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"x\.bin cannot be written: no room is left"):
        store.write_bytes("x.bin", b"new" * 1000)
    assert store.read_bytes("x.bin") == b"old"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x.bin"]


def test_write__killed_in_the_middle_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    code = (
        "import os, sys; from dinoidd.storage import Store; os.fsync = lambda _: os._exit(9);"
        "Store.open(sys.argv[1]).write_bytes('x.bin', b'half' * 10000)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1  # the temporary file, which names() does not show
    assert Store.open(str(tmp_path)).names() == []


def test_upload__failed_part_leaves_no_object(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dinoidd.storage.backend import backend_of

    source = tmp_path / "large.bin"
    with source.open("wb") as file:
        file.truncate(101 << 20)  # over the size of one PUT
    store = Store.open(f"s3://{s3.new_bucket()}/out", s3.options)
    fs = backend_of(store.uri, s3.options).fs
    call, calls = fs._call_s3, []

    async def breaking(method: str, *args: object, **kwargs: object) -> object:
        calls.append(method)
        if method == "upload_part" and kwargs["PartNumber"] == 2:
            raise ConnectionResetError("gone")
        return await call(method, *args, **kwargs)

    fs._call_s3 = breaking
    monkeypatch.setattr("dinoidd.storage.store.STEADY", BRISK)
    try:
        with pytest.raises(StorageError, match="does not answer"):
            store.upload(source, "large.bin")
    finally:
        del fs._call_s3
    assert store.names() == []
    assert "complete_multipart_upload" not in calls
    assert "abort_multipart_upload" in calls
    store.upload(source, "large.bin")
    info = store.info("large.bin")
    assert info is not None
    assert info.size == 101 << 20


# --- what goes wrong


def test_check_writable__leaves_nothing(store: Store) -> None:
    store.check_writable()
    assert [i.uri for i in store.walk()] == []


def test_check_writable__file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"the output .*file/run cannot be written to: a part of"):
        Store.open(str(tmp_path / "file" / "run")).check_writable()
    with pytest.raises(OutputError, match="a part of the path is a file, not a folder"):
        Store.open(str(tmp_path / "file")).check_writable()


def test_check_writable__no_such_bucket(s3: S3) -> None:
    with pytest.raises(OutputError) as caught:
        Store.open("s3://no-such-bucket/run", s3.options).check_writable()
    assert str(caught.value) == (
        "the output s3://no-such-bucket/run cannot be written to: "
        "there is no bucket 'no-such-bucket' on this store"
    )


def _wrong_secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cret")
    return "the access key and the secret key do not fit"


def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    return "no usable credentials: set AWS_ACCESS_KEY_ID"


def _no_profile(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    return "there is no AWS profile 'nobody'"


@pytest.mark.parametrize("spoil", [_wrong_secret, _no_credentials, _no_profile])
def test_store__bad_credentials(
    s3: S3, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], str]
) -> None:
    store = Store.open(f"s3://{s3.new_bucket()}/p", s3.options)
    store.write_bytes("x", b"1")  # with good ones: the connection must not outlive them
    expected = spoil(monkeypatch)
    reader = ObjectReader(s3.options)
    for action in (store.names, store.check_writable, lambda: reader.read(store.uri_of("x"))):
        with pytest.raises((StorageError, OutputError), match=expected) as caught:
            action()
        assert "wr0ng-s3cret" not in str(caught.value)
        assert getattr(caught.value, "kind", "credentials") == "credentials"


def test_read__unreachable_endpoint_ends_in_seconds(s3: S3) -> None:
    with socket.socket() as held:  # bound but not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        options = StorageOptions(endpoint_url=f"http://127.0.0.1:{held.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"the S3 server http://127.* does not answer") as e:
            ObjectReader(options).read("s3://bucket/x.png")
        with pytest.raises(OutputError, match="does not answer"):
            Store.open("s3://bucket/x", options).check_writable()
    assert e.value.kind == "unreachable"
    assert time.monotonic() - start < 15


def test_read__endpoint_that_is_no_address(s3: S3) -> None:
    with pytest.raises(StorageError, match="the endpoint is no web address"):
        ObjectReader(StorageOptions(endpoint_url="minio")).read("s3://bucket/x.png")


class _Canned(http.server.BaseHTTPRequestHandler):
    """Answers every request as the test says: a status and a body, or a body that breaks off."""

    status, code, breaks = 200, "", 0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, answer = type(self), self.rfile and self.code
        if kind.breaks:
            kind.breaks -= 1
            self._send(200, b"half", 100)
            self.close_connection = True
        elif answer:
            body = f"<Error><Code>{answer}</Code><Message>key AKIASECRET</Message></Error>"
            self._send(self.status, body.encode())
        else:
            self._send(self.status, b"whole")

    do_PUT = do_HEAD = do_GET

    def _send(self, status: int, body: bytes, length: int | None = None) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def canned(s3: S3) -> Iterator[tuple[type[_Canned], str]]:
    """A server that answers what the test wants, and its address."""

    class Handler(_Canned):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Handler, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "AccessDenied", "forbidden", "access is denied"),
        (403, "InvalidAccessKeyId", "credentials", "does not know the access key"),
        (400, "ExpiredToken", "credentials", "expired or invalid"),
        (403, "RequestTimeTooSkewed", "credentials", "set the clock of "),
        (403, "SomethingNew", "forbidden", r"access is denied.*\(SomethingNew\)"),
        (403, "InvalidObjectState", "unreadable", "archived"),
        (404, "NoSuchBucket", "missing", "there is no bucket 'b'"),
        (404, "NoSuchKey", "missing", "there is no such object"),
        (503, "SlowDown", "unreachable", "overloaded or failing"),
        (500, "InternalError", "unreachable", "overloaded or failing"),
        (418, "Teapot", "unreadable", "the store answered Teapot"),
    ],
)
def test_read__what_s3_answers_becomes_a_sentence(
    canned: tuple[type[_Canned], str], status: int, code: str, kind: str, says: str
) -> None:
    handler, url = canned
    handler.status, handler.code = status, code
    with pytest.raises(StorageError, match=says) as caught:
        ObjectReader(StorageOptions(endpoint_url=url)).read("s3://b/x.png")
    assert caught.value.kind == kind
    assert "AKIASECRET" not in str(caught.value)


def test_read__broken_body_is_asked_for_again(canned: tuple[type[_Canned], str]) -> None:
    handler, url = canned
    reader = ObjectReader(StorageOptions(endpoint_url=url))
    handler.breaks = 2
    assert reader.read("s3://b/x.png") == b"whole"
    handler.breaks = 3
    with pytest.raises(StorageError, match="does not answer") as caught:
        reader.read("s3://b/x.png")
    assert caught.value.kind == "unreachable"


def test_read__web_address(canned: tuple[type[_Canned], str]) -> None:
    handler, url = canned
    reader = ObjectReader()
    assert reader.read(f"{url}/x.png?X-Signature=s") == b"whole"
    assert reader.read(f"{url}/x.png", max_bytes=5) == b"whole"
    with pytest.raises(StorageError, match=r"x\.png has 5 bytes, more than the limit of 4 bytes"):
        reader.read(f"{url}/x.png", max_bytes=4)
    for status, kind in ((403, "forbidden"), (404, "missing"), (500, "unreachable")):
        handler.status = status
        with pytest.raises(StorageError) as caught:
            reader.read(f"{url}/x.png?X-Signature=s3cr3t", max_bytes=100)
        assert caught.value.kind == kind
        assert "s3cr3t" not in str(caught.value)


def test_read__other_stores_and_unknown_ones() -> None:
    Store.open("memory://folder").write_bytes("x.png", b"1")
    assert Store.open("memory://folder").names() == ["x.png"]
    assert ObjectReader().read("memory://folder/x.png", max_bytes=1) == b"1"
    with pytest.raises(StorageError, match="nfs4:// is no known kind of address"):
        ObjectReader().read("nfs4://x/y.png")
    with pytest.raises(StorageError, match="bucket or the key is not a valid one"):
        ObjectReader().read("s3://no bucket/y.png")
    with pytest.raises(StorageError, match="an empty address"):
        ObjectReader().read("")


def test_read__local_folder_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, says in (("pipe.png", "it is no regular file"), ("", "it is a folder")):
        with pytest.raises(StorageError, match=says) as caught:
            ObjectReader().read(str(tmp_path / name))
        assert caught.value.kind == "unreadable"


def test_read__many_threads(store: Store) -> None:
    for number in range(20):
        store.write_bytes(f"{number}", bytes([number]) * 1000)
    reader = ObjectReader(store.options)
    with ThreadPoolExecutor(16) as threads:
        uris = [store.uri_of(str(number % 20)) for number in range(200)]
        read = list(threads.map(reader.read, uris))
    assert all(data == bytes([n % 20]) * 1000 for n, data in enumerate(read))


def test_walk__links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"1")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    found = list(LocalFiles().walk(str(tmp_path), "", None))
    assert [(i.uri, i.size) for i in found] == [
        (f"{tmp_path}/a/x.png", 1),
        (f"{tmp_path}/broken.png", None),
    ]
