"""cluster/iam-policy.json against a server that holds to it: enough for what a run calls, and no more."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cluster_files import text
from conftest import CREDENTIALS, FOREIGN
from ray_head import free_ports

from dinoidd.errors import DinoiddError, StorageError
from dinoidd.storage import StorageOptions, Store

INPUT, OUTPUT = "input-bucket", "output-bucket"
USER = "run"


class GuardedS3:
    """moto, which lets a user do what its policy says."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._root = {"endpoint_url": endpoint, "region_name": "us-east-1"}

    def allow(self, policy: dict[str, Any]) -> None:
        """From now on `USER` may do this, and nobody anything else."""
        self._guard(1_000_000)
        boto3.client("iam", **self._root).put_user_policy(
            UserName=USER, PolicyName="s3", PolicyDocument=json.dumps(policy)
        )
        self._guard(0)

    def prepare(self) -> dict[str, str]:
        """Buckets with an image in one, an abandoned upload in the other; the user's credentials."""
        iam, s3 = boto3.client("iam", **self._root), boto3.client("s3", **self._root)
        iam.create_user(UserName=USER)
        for bucket in (INPUT, OUTPUT):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=INPUT, Key="in/a.jpg", Body=b"image")
        key = iam.create_access_key(UserName=USER)["AccessKey"]
        return {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def abandon_upload(self) -> None:
        self._guard(1_000_000)
        s3 = boto3.client("s3", **self._root)
        s3.create_multipart_upload(Bucket=OUTPUT, Key="run/half")
        self._guard(0)

    def _guard(self, free_actions: int) -> None:
        url, body = f"{self.endpoint}/moto-api/reset-auth", str(free_actions).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedS3]:
    port = free_ports(1)[0]
    command = [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < until, "moto does not answer"
            time.sleep(0.1)
    with pytest.MonkeyPatch.context() as patched:
        for name in FOREIGN:
            patched.delenv(name, raising=False)
        for name, value in CREDENTIALS.items():
            patched.setenv(name, value)
        guarded = GuardedS3(endpoint)
        for name, value in guarded.prepare().items():
            patched.setenv(name, value)
        yield guarded
    server.terminate()
    server.wait(10)


def policy(without: str = "") -> dict[str, Any]:
    """The file, with buckets in it, and with one action fewer."""
    filled = text("iam-policy.json").replace("INPUT_BUCKET", INPUT).replace("OUTPUT_BUCKET", OUTPUT)
    document = json.loads(filled)
    for statement in document["Statement"]:
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        statement["Action"] = [a for a in actions if a != without]
    document["Statement"] = [s for s in document["Statement"] if s["Action"]]
    return document


def store(guarded: GuardedS3, uri: str) -> Store:
    return Store.open(uri, StorageOptions(endpoint_url=guarded.endpoint))


def use_all(guarded: GuardedS3, folder: Path) -> None:
    """Every request that a run makes of its buckets.

    But for the removal of many at once: moto asks the bucket's own policy about that, not the user's.
    """
    source, output = store(guarded, f"s3://{INPUT}/in"), store(guarded, f"s3://{OUTPUT}/run")
    assert [found.size for found in source.walk()] == [5]
    assert source.read_bytes("a.jpg") == b"image"
    with source.open_read("a.jpg") as file:
        assert file.read() == b"image"
    guarded.abandon_upload()
    output.check_writable()
    output.write_bytes("run.json", b"{}")
    (folder / "part").write_bytes(b"rows")
    output.upload(folder / "part", "images/part")
    filesystem, path = output.arrow_path()
    with filesystem.open_output_stream(f"{path}/images/other") as stream:
        stream.write(b"rows")
    assert output.read_bytes("images/other") == b"rows"
    output.remove_unfinished()
    for found in list(output.walk()):
        output.remove(found.uri.removeprefix(f"{output.uri}/"))
    assert list(output.walk()) == []


def test_policy__is_enough_for_a_run(guarded: GuardedS3, tmp_path: Path) -> None:
    guarded.allow(policy())
    use_all(guarded, tmp_path)


@pytest.mark.parametrize(
    "action",
    sorted({a for s in policy()["Statement"] for a in s["Action"]}),
)
def test_policy__holds_no_action_that_is_not_needed(
    guarded: GuardedS3, tmp_path: Path, action: str
) -> None:
    guarded.allow(policy(without=action))
    with pytest.raises((DinoiddError, PermissionError), match="denied"):
        use_all(guarded, tmp_path)


def test_policy__lets_nobody_write_the_input(guarded: GuardedS3) -> None:
    guarded.allow(policy())
    source = store(guarded, f"s3://{INPUT}/in")
    for change in (lambda: source.write_bytes("b.jpg", b"x"), lambda: source.remove("a.jpg")):
        with pytest.raises(StorageError, match="access is denied"):
            change()
