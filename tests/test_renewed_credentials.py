"""Credentials that a tool renews in a file every hour: what runs goes on with the new ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CREDENTIALS, S3
from flaky_store import FlakyStore, Handler, flaky_store, refused

from dinoidd.data.manifest import ROWS_PER_GROUP, read_rows, write_manifest
from dinoidd.errors import OutageError
from dinoidd.segment.outage import check_output
from dinoidd.storage import ObjectInfo, ObjectReader, StorageOptions, Store

BODY = b"image"
Renew = Callable[[str], None]


@pytest.fixture
def flaky(s3: S3) -> Iterator[FlakyStore]:
    with flaky_store(s3.endpoint_url) as store:
        yield store


@pytest.fixture
def renew(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Renew:
    """Write the credentials file anew, with another token; nothing else says who asks."""
    file = tmp_path / "credentials"
    keys = [f"{name.lower()} = {CREDENTIALS[name]}" for name in CREDENTIALS if "_KEY" in name]

    def write(token: str) -> None:
        file.write_text("\n".join(["[default]", *keys, f"aws_session_token = {token}"]))

    write("old")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    return write


@pytest.fixture
def store(s3: S3, flaky: FlakyStore, renew: Renew, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder with an image."""
    bucket = s3.new_bucket()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = Store.open(f"s3://{bucket}/x", StorageOptions(endpoint_url=flaky.endpoint_url))
    store.write_bytes("x.png", BODY)
    return store


def old_token(handler: Handler, store: FlakyStore) -> bool:
    """The one that was there at first is expired."""
    is_old = handler.headers["X-Amz-Security-Token"] == "old"
    return is_old and refused(400, "ExpiredToken")(handler, store)


def test_read__goes_on(store: Store, flaky: FlakyStore, renew: Renew) -> None:
    reader = ObjectReader(store.options)
    assert reader.read(store.uri_of("x.png")) == BODY
    flaky.add(old_token)
    with pytest.raises(OutageError, match="the session token is expired"):
        reader.read(store.uri_of("x.png"))
    renew("new")
    assert reader.read(store.uri_of("x.png")) == BODY


def test_read__that_began_with_old_ones_is_done_with_new_ones(
    store: Store, flaky: FlakyStore, renew: Renew
) -> None:
    reader = ObjectReader(store.options)
    assert reader.read(store.uri_of("x.png")) == BODY
    flaky.add(old_token)
    renew("new")
    assert reader.read(store.uri_of("x.png")) == BODY
    store.write_bytes("y.png", BODY)


def test_check_output__notices_new_ones(store: Store, flaky: FlakyStore, renew: Renew) -> None:
    """A run that waits for them must see that they are there."""
    check_output(store)
    flaky.add(old_token)
    with pytest.raises(OutageError):
        check_output(store)
    renew("new")
    check_output(store)


def test_manifest__file_that_is_open_is_opened_anew(
    store: Store, flaky: FlakyStore, renew: Renew
) -> None:
    images = [ObjectInfo(uri=f"s3://b/{i}", size=1) for i in range(ROWS_PER_GROUP + 1)]
    write_manifest(store, images, input_uri="s3://b", counts={})
    assert read_rows(store, 0, 1)["uri"].to_pylist() == ["s3://b/0"]
    flaky.add(old_token)
    renew("new")
    rows = read_rows(store, ROWS_PER_GROUP, ROWS_PER_GROUP + 1)
    assert rows["uri"].to_pylist() == [f"s3://b/{ROWS_PER_GROUP}"]
