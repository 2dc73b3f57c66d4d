"""A store on a bad day: throttling, resets, trickles, expired tokens, outages, full disks."""

import asyncio
import errno
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec.asyn
import pytest
from conftest import S3
from flaky_store import (
    Act,
    FlakyStore,
    down,
    first_calls,
    flaky_store,
    refused,
    reset,
    reset_in_body,
    stalled,
    throttled,
    trickling,
    without_length,
)
from test_output_file import Folders

from dinoidd.data.manifest import read_rows, write_manifest
from dinoidd.errors import OutageError, StorageError
from dinoidd.storage import ObjectReader, Patience, StorageOptions, Store, other, retry
from dinoidd.storage.uri import ObjectInfo

SOME = Patience(attempts=5, seconds=30)
BODY = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def flaky(s3: S3) -> Iterator[FlakyStore]:
    with flaky_store(s3.endpoint_url) as store:
        yield store


@pytest.fixture
def options(flaky: FlakyStore) -> StorageOptions:
    return StorageOptions(endpoint_url=flaky.endpoint_url)


@pytest.fixture
def uri(s3: S3) -> str:
    """An object of the real server."""
    bucket = s3.new_bucket()
    s3.client().put_object(Bucket=bucket, Key="x.png", Body=BODY)
    return f"s3://{bucket}/x.png"


def parts(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


# --- reading


@pytest.mark.parametrize(
    "act",
    [throttled, refused(500, "InternalError"), refused(429, "429"), reset, reset_in_body],
    ids=["SlowDown", "500", "429", "reset", "reset in the body"],
)
def test_read__is_tried_again(
    flaky: FlakyStore, options: StorageOptions, uri: str, act: Act
) -> None:
    rule = flaky.add(act, method="GET", holds="x.png", times=4)
    assert ObjectReader(options, SOME).read(uri) == BODY
    assert rule.hits == 4
    assert len(flaky.requests) == 5, "one layer tries again, and no other"


def test_read__one_object_that_stays_throttled(
    flaky: FlakyStore, options: StorageOptions, uri: str
) -> None:
    flaky.add(throttled, method="GET", holds="/x.png")  # asked for, not listed
    with pytest.raises(StorageError) as caught:
        ObjectReader(options, SOME).read(uri)
    assert type(caught.value) is StorageError, "the store answers otherwise"
    assert caught.value.kind == "unreachable"
    said = f"{uri} cannot be read: the store is overloaded or failing (SlowDown) (tried 5 times in "
    assert re.fullmatch(rf"{re.escape(said)}\d+ s\)", str(caught.value))


def test_read__store_that_is_down(flaky: FlakyStore, options: StorageOptions, uri: str) -> None:
    flaky.add(down)
    with pytest.raises(
        OutageError, match=r"does not answer \(.*\) \(tried 5 times in \d+ s\)"
    ) as e:
        ObjectReader(options, SOME).read(uri)
    assert e.value.kind == "unreachable"


def test_read__waits_grow_and_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(retry.time, "sleep", waits.append)

    def call(_: float) -> None:
        raise OutageError("unreachable", "no")

    for _ in range(200):
        with pytest.raises(OutageError):
            retry.persist(call, retry.STEADY)
    rounds = [waits[i::7] for i in range(7)]
    for number, seen in enumerate(rounds):
        most = min(retry.LONGEST_WAIT_S, 0.5 * 2**number)
        assert max(seen) <= most
        assert min(seen) < most / 10, "full jitter"
        assert max(seen) > most * 0.9


def test_read__a_trickle_ends(flaky: FlakyStore, options: StorageOptions, uri: str) -> None:
    flaky.add(trickling, method="GET", holds="/x.png")
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        ObjectReader(options, Patience(attempts=5, seconds=2)).read(uri)
    assert time.monotonic() - began < 60, "it would have taken a quarter of an hour"
    assert caught.value.kind == "unreachable"
    said = f"{uri} cannot be read: it takes more than 2 s (tried once in "
    assert str(caught.value).startswith(said)


def test_read__length_left_out(
    flaky: FlakyStore, options: StorageOptions, s3: S3, uri: str
) -> None:
    listed = next(Store.open(uri.removesuffix("/x.png"), options).walk())
    flaky.add(without_length, method="GET", holds="/x.png")
    assert ObjectReader(options, SOME).read(uri, 100_000, listed) == BODY


def test_read__expired_token_is_no_image_s_fault(
    flaky: FlakyStore, options: StorageOptions, uri: str
) -> None:
    reader = ObjectReader(options, SOME)
    flaky.add(refused(403, "ExpiredToken"), after=1)
    assert reader.read(uri) == BODY
    with pytest.raises(OutageError, match="the session token is expired or invalid") as caught:
        reader.read(uri)
    assert caught.value.kind == "credentials"
    assert len(flaky.requests) == 3, "once more, in case the credentials were renewed"


def test_read__denied_object_is_that_object_s(
    flaky: FlakyStore, options: StorageOptions, uri: str
) -> None:
    flaky.add(refused(403, "AccessDenied"), holds="/x.png")
    with pytest.raises(StorageError, match="access is denied") as caught:
        ObjectReader(options, SOME).read(uri)
    assert type(caught.value) is StorageError
    assert caught.value.kind == "forbidden"


def test_read__vanished_after_listing(
    flaky: FlakyStore, options: StorageOptions, s3: S3, uri: str
) -> None:
    bucket, key = parts(uri)
    listed = next(Store.open(f"s3://{bucket}", options).walk())
    gone = first_calls(lambda: s3.client().delete_object(Bucket=bucket, Key=key))
    flaky.add(gone, method="GET", holds=key)
    with pytest.raises(
        StorageError, match=r"x\.png cannot be read: there is no such obj"
    ) as caught:
        ObjectReader(options, SOME).read(uri, indexed=listed)
    assert caught.value.kind == "missing"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (BODY + b"more", "it had 10,240 bytes and has 10,244 now"),
        (bytes(reversed(BODY)), r"its ETag was \w{32} and is \w{32} now"),
    ],
    ids=["size", "etag"],
)
def test_read__changed_after_listing(
    flaky: FlakyStore, options: StorageOptions, s3: S3, uri: str, body: bytes, says: str
) -> None:
    bucket, key = parts(uri)
    listed = next(Store.open(f"s3://{bucket}", options).walk())
    assert ObjectReader(options).read(uri, indexed=listed) == BODY
    new = first_calls(lambda: s3.client().put_object(Bucket=bucket, Key=key, Body=body))
    flaky.add(new, method="GET", holds=key, times=1)
    with pytest.raises(StorageError, match=f"x.png changed after it was indexed: {says}") as caught:
        ObjectReader(options).read(uri, indexed=listed)
    assert caught.value.kind == "changed"


def test_read__changed_locally(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"now")
    known = ObjectInfo(uri=str(path), size=4)
    with pytest.raises(StorageError, match="it had 4 bytes and has 3 now"):
        ObjectReader().read(str(path), indexed=known)
    path.write_bytes(b"four")
    assert ObjectReader().read(str(path), indexed=known) == b"four"
    assert ObjectReader().read(str(path), indexed=ObjectInfo(uri="", size=None)) == b"four"


# --- writing


@pytest.mark.parametrize("act", [throttled, refused(500, "InternalError"), reset])
def test_write__is_tried_again(
    flaky: FlakyStore, options: StorageOptions, s3: S3, act: Act
) -> None:
    store = Store.open(f"s3://{s3.new_bucket()}/out", options)
    rule = flaky.add(act, method="PUT", times=4)
    store.write_bytes("part.parquet", BODY)
    assert rule.hits == 4
    assert store.read_bytes("part.parquet") == BODY


def test_write__stalled_upload_ends(
    flaky: FlakyStore,
    options: StorageOptions,
    s3: S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server takes no byte and says nothing: no time-out of the libraries counts."""
    monkeypatch.setattr("dinoidd.storage.s3.UPLOAD_TIMEOUT_S", 0)
    monkeypatch.setattr("dinoidd.storage.s3.SLOWEST_UPLOAD", 8 << 20)
    monkeypatch.setattr("dinoidd.storage.store.STEADY", Patience(attempts=1, seconds=9))
    store = Store.open(f"s3://{s3.new_bucket()}/out", options)
    large = bytes(16 << 20)  # more than sockets hold
    (tmp_path / "x").write_bytes(large)
    flaky.add(stalled(30), method="PUT")
    began = time.monotonic()
    with pytest.raises(
        OutageError, match=r"part\.parquet cannot be written: it takes more than 3 s"
    ):
        store.write_bytes("part.parquet", large, Patience(attempts=1, seconds=3))
    with pytest.raises(
        OutageError, match=r"part\.parquet cannot be written: it takes more than 2 s"
    ):
        store.upload(tmp_path / "x", "part.parquet")
    assert time.monotonic() - began < 20


def test_upload__is_tried_again(
    flaky: FlakyStore, options: StorageOptions, s3: S3, tmp_path: Path
) -> None:
    store = Store.open(f"s3://{s3.new_bucket()}/out", options)
    (tmp_path / "x").write_bytes(BODY)
    flaky.add(reset, method="PUT", times=4)
    store.upload(tmp_path / "x", "part.parquet")
    assert store.read_bytes("part.parquet") == BODY


def test_write__network_folder_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = Path.mkdir, iter([errno.ESTALE] * 3)

    def mkdir(path: Path, *args: object, **kwargs: object) -> None:
        if code := next(failures, 0):
            raise OSError(code, "Stale file handle")
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    Store.open(str(tmp_path / "out")).write_bytes("x", b"1")
    assert (tmp_path / "out" / "x").read_bytes() == b"1"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_write__full_disk(full_disk: Path) -> None:
    store = Store.open(str(full_disk / "out"))
    store.write_bytes("kept", b"k" * 500_000)
    with pytest.raises(StorageError) as caught:
        store.write_bytes("part.parquet", b"x" * 1_000_000)
    assert caught.value.kind == "full"
    assert str(caught.value) == (
        f"{full_disk}/out/part.parquet cannot be written: no room is left on the device: free some, "
        "and run the same command again"
    )
    assert [p.name for p in (full_disk / "out").iterdir()] == ["kept"], "nothing half-written"


def test_merge__full_temporary_folder(
    full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = Folders(Store.open(str(tmp_path / "run")))
    for chunk in folders.layout.chunks_of(0):
        folders.write(chunk)
    monkeypatch.setattr(tempfile, "tempdir", str(full_disk))
    (full_disk / "filler").write_bytes(b"f" * ((1 << 20) - 4096))
    with pytest.raises(
        StorageError, match=f"the temporary folder {full_disk} of .* is full: "
    ) as e:
        folders.merge(0)
    assert e.value.kind == "full"
    assert folders.images.names() == []
    assert len(folders.staging.names()) == len(folders.layout.chunks_of(0)), "all is kept"
    assert [p.name for p in full_disk.iterdir()] == ["filler"]
    (full_disk / "filler").unlink()
    folders.merge(0)
    assert folders.images.names() == [folders.layout.file_name(0)]


@pytest.mark.parametrize("act", [down, refused(400, "ExpiredToken")], ids=["down", "token"])
def test_manifest__of_a_store_that_is_out_is_not_missing(
    flaky: FlakyStore, options: StorageOptions, s3: S3, act: Act
) -> None:
    folder = Store.open(f"s3://{s3.new_bucket()}/out/manifest", options)
    write_manifest(folder, [ObjectInfo(uri="s3://b/x", size=1)], input_uri="s3://b", counts={})
    flaky.add(act)
    with pytest.raises(OutageError, match=r"part-000000000000\.parquet cannot be read"):
        read_rows(folder, 0, 1)
    flaky.clear()
    assert read_rows(folder, 0, 1)["uri"].to_pylist() == ["s3://b/x"]
    folder.remove("part-000000000000.parquet")
    with pytest.raises(StorageError, match="there is no such") as caught:
        read_rows(folder, 0, 1, "another version")
    assert caught.value.kind == "missing"


class StalledCloud(fsspec.asyn.AsyncFileSystem):
    """A store that knows its objects and never sends one, as gs:// and az:// may."""

    protocol = "stalled"
    ended = 0  # requests that were given up

    async def _info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "size": len(BODY), "type": "file"}

    async def _cat_file(self, path: str, *_: object, **__: object) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            StalledCloud.ended += 1
            raise
        return BODY


@pytest.mark.parametrize("max_bytes", [None, 100_000])
def test_read__cloud_that_stalls_ends(max_bytes: int | None) -> None:
    fsspec.register_implementation("stalled", StalledCloud, clobber=True)
    StalledCloud.ended = 0
    reader = ObjectReader(patience=Patience(attempts=2, seconds=1))
    began = time.monotonic()
    with pytest.raises(StorageError, match="does not answer") as caught:
        reader.read("stalled://bucket/x.png", max_bytes)
    assert time.monotonic() - began < 10
    assert caught.value.kind == "unreachable"
    assert StalledCloud.ended == 1
    with pytest.raises(StorageError, match="more than the limit of 9 bytes"):
        reader.read("stalled://bucket/x.png", 9)


def test_read__cloud_that_tells_nothing_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_answer(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    fsspec.register_implementation("stalled", StalledCloud, clobber=True)
    monkeypatch.setattr(StalledCloud, "_info", no_answer)
    monkeypatch.setattr(other, "_INFO_S", 0.1)
    with pytest.raises(OutageError, match="does not answer"):
        ObjectReader(patience=Patience(attempts=1, seconds=0.1)).read("stalled://bucket/x.png")
