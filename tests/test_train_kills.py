"""Training under what happens to long runs, from bucket to bucket and as a job of a cluster: each in
processes of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import S3
from ray_head import RAY, ray_head
from ray_trainings import (
    EPOCHS,
    children,
    curve,
    epochs_done,
    furthest,
    make_scenes,
    train_workers,
    weights,
)

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parents[1]
SETTINGS = (
    *("--preset", "tiny", "--image-size", "64", "--batch-size", "4", "--epochs", str(EPOCHS)),
    *("--device", "cpu", "--set", "loss.points=200", "optimizer.learning_rate=3e-3", "threads=2"),
)


@pytest.fixture(scope="module")
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Commands of a test; what is left of them and below them is ended by its ids."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            below = children(process.pid)
            process.kill()
            for child in below:
                if Path(f"/proc/{child}").exists():
                    os.kill(child, signal.SIGKILL)


def start(
    started: list[subprocess.Popen[str]],
    data: object,
    output: object,
    *more: object,
    **environment: str,
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dinoidd", "train", "--data", data, "--output", output]
    process = subprocess.Popen(
        [*map(str, [*command, *SETTINGS, *more])],
        env=os.environ | {"RAY_ADDRESS": ""} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def wait_for_epochs(output: Path, epochs: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 150
    while epochs_done(output) < epochs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def wait_for_file(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> str:
    """What a command that ends well says."""
    said, logged = process.communicate(timeout=300)
    assert process.returncode == 0, logged
    return said + logged


def wait_for_end(processes: list[int]) -> None:
    """Workers go with their driver."""
    assert processes
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < deadline, "Ray outlives its driver"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def reference(
    started: list[subprocess.Popen[str]],
    scenes: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The output of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("reference") / "run"
    finish(start(started, scenes, output))
    return output


@pytest.mark.slow
def test_killed_driver__the_same_command_goes_on_the_same_curve(
    started: list[subprocess.Popen[str]], scenes: Path, reference: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    cache = ("--cache", reference / "cache")
    process = start(started, scenes, output, *cache)
    wait_for_epochs(output, 2, process)
    workers = train_workers(process.pid)
    process.kill()
    process.communicate()
    assert not (output / "summary.json").exists()
    wait_for_end(workers)
    told = finish(start(started, scenes, output, *cache))
    assert "best miou" in told
    assert curve(output) == curve(reference)
    assert furthest(weights(output), weights(reference)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signal__ends_promptly_and_says_how_to_go_on(
    started: list[subprocess.Popen[str]], scenes: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    output = tmp_path / "run"
    more = ("--set", "epochs=500", "cached=false")
    process = start(started, scenes, output, *more)
    wait_for_epochs(output, 2, process)
    workers, asked = train_workers(process.pid), time.monotonic()
    process.send_signal(sent)
    _, logged = process.communicate(timeout=60)
    assert time.monotonic() - asked < 30
    assert process.returncode == 130
    _assert_told(logged, "what is done is kept; run the same command again to resume")
    wait_for_end(workers)
    assert (output / "curves.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signal__before_the_first_epoch(
    started: list[subprocess.Popen[str]],
    scenes: Path,
    reference: Path,
    tmp_path: Path,
    sent: signal.Signals,
) -> None:
    output = tmp_path / "run"
    process = start(started, scenes, output, "--cache", reference / "cache")
    wait_for_file(output / "training.json", process)
    process.send_signal(sent)
    _, logged = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = "no epoch is done yet; the cache is kept, and the same command trains from it"
    _assert_told(logged, kept)
    assert not (output / "curves.png").exists()


def _assert_told(logged: str, kept: str) -> None:
    """Once what is left, then that it was interrupted, and nothing behind it."""
    *_, told, last = logged.splitlines()
    assert told.partition(" ")[2] == f"interrupted: {kept}", logged
    assert last == "dinoidd train: interrupted"
    assert "Traceback" not in logged


@pytest.mark.slow
def test_train__from_bucket_to_bucket(
    started: list[subprocess.Popen[str]],
    s3: S3,
    scenes: Path,
    reference: Path,
    tmp_path: Path,
) -> None:
    bucket, client = s3.new_bucket(), s3.client()
    for file in sorted(scenes.rglob("*.*")):
        client.upload_file(str(file), bucket, f"data/{file.relative_to(scenes)}")
    arguments = (
        *(f"s3://{bucket}/data", f"s3://{bucket}/runs/1"),
        *("--cache", f"s3://{bucket}/cache", "--endpoint-url", s3.endpoint_url),
    )
    finish(start(started, *arguments, DINOIDD_CACHE=str(tmp_path / "copies")))
    keys = [o["Key"] for o in client.list_objects_v2(Bucket=bucket)["Contents"]]
    for name in ("best.safetensors", "metrics.jsonl", "training.log", "summary.json"):
        assert f"runs/1/{name}" in keys
    assert "cache/_SUCCESS" in keys
    for name in ("last.safetensors", "metrics.jsonl"):
        client.download_file(bucket, f"runs/1/{name}", str(tmp_path / name))
    assert curve(tmp_path) == curve(reference)
    assert furthest(weights(tmp_path), weights(reference)) == 0
    again = finish(start(started, *arguments))
    assert "was finished before: nothing to do" in again


@pytest.mark.slow
def test_job__of_a_cluster_is_the_same_run(scenes: Path, reference: Path, tmp_path: Path) -> None:
    code, output = tmp_path / "code", tmp_path / "run"
    for name in ("dinoidd", "jobs"):
        shutil.copytree(
            ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    with ray_head() as head:
        submit = (RAY, "job", "submit", "--address", head.dashboard, "--working-dir", code, "--")
        job = ("python", "jobs/train.py", "--data", scenes, "--output", output, *SETTINGS)
        done = subprocess.run(
            [*map(str, (*submit, *job))],
            env=head.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best miou" in done.stdout
    assert curve(output) == curve(reference)
    assert furthest(weights(output), weights(reference)) == 0
