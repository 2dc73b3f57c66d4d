"""Fixtures of more than one test file: a real S3 server, and places to store things in."""

import itertools
import logging
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import botocore.config
import pytest
from s3server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

from dinoidd.storage import StorageOptions, Store

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",  # nobody goes looking for an instance's role
}
FOREIGN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_numbers = itertools.count()


@dataclass(frozen=True)
class S3:
    """The test server as a test sees it."""

    endpoint_url: str

    @property
    def options(self) -> StorageOptions:
        """Storage options that lead to the server."""
        return StorageOptions(endpoint_url=self.endpoint_url)

    def client(self):  # botocore makes the class at run time
        """A plain boto3 client: tests must not check our storage code by itself."""
        config = botocore.config.Config(s3={"addressing_style": "path"})
        return boto3.client("s3", endpoint_url=self.endpoint_url, config=config)

    def new_bucket(self) -> str:
        """The name of a fresh bucket."""
        name = f"test-{next(_numbers)}-{uuid.uuid4().hex[:8]}"
        self.client().create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A shell starts jobs in its background deaf to Ctrl-C; the tests send it, and expect it heard."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """A test that runs the command line must not leave its handler, on a closed stream, to the next."""
    yield
    logger = logging.getLogger("dinoidd")
    logger.handlers = []
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of one server for the whole run."""
    server = S3Server(tmp_path_factory.mktemp("swift"))
    server.start()
    try:
        yield server.endpoint_url
    finally:
        server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with its credentials in the environment for as long as the test runs."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return S3(s3_server)


@pytest.fixture(params=["local", "s3"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes empty folders, once on this machine and once on the S3 server."""
    if request.param == "local":
        return lambda: Store.open(str(tmp_path / f"store-{next(_numbers)}"))
    s3: S3 = request.getfixturevalue("s3")
    return lambda: Store.open(f"s3://{s3.new_bucket()}/some/prefix", s3.options)


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    """One empty folder, local and on S3 in turn."""
    return new_store()
