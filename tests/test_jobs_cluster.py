"""`dinoidd jobs` against a real head over HTTP: each job is sent, followed, stopped and told."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_files import ROOT
from images import write_plain
from ray_head import CLEARED, RayHead, ray_head
from ray_trainings import make_scenes
from segment_runs import Ran, proof

pytestmark = pytest.mark.timeout(300)
TOKEN = "0123456789abcdef0123456789abcdef"
TINY = ("--preset", "tiny", "--batch-size", "4")


def dinoidd(*words: object, **environment: str) -> Ran:
    """One command in a process of its own, as from another machine: all it has is an address."""
    clean = {k: v for k, v in os.environ.items() if k not in CLEARED}
    ran = subprocess.run(
        [sys.executable, "-m", "dinoidd", *map(str, words)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as head:
        yield head


@pytest.fixture
def jobs(head: RayHead) -> Callable[..., Ran]:
    """`dinoidd jobs ACTION ...` of that head, whose address is in the environment."""

    def jobs(*words: object) -> Ran:
        return dinoidd("jobs", *words, RAY_ADDRESS=head.dashboard, RAY_AUTH_MODE="disabled")

    return jobs


def test_segment__is_followed_to_its_end(jobs: Callable[..., Ran], tmp_path: Path) -> None:
    places = ["--input", write_plain(tmp_path / "in", 12), "--output", tmp_path / "out"]
    ran = jobs("submit", "--name", "street-1", "--metadata", "drive=42", "segment", *TINY, *places)
    assert ran.status == 0, ran.out + ran.err
    assert "12 images, " in ran.out
    assert "images   12 (12 ok, 0 errors)" in ran.out
    assert ran.err.splitlines()[-1] == "street-1: SUCCEEDED. Job finished successfully."
    assert " E " not in ran.out, "the core's own remarks"
    assert proof(tmp_path / "out").rows == 12

    status = json.loads(jobs("status", "--json", "street-1").out)
    assert status["status"] == "SUCCEEDED"
    assert status["metadata"].items() >= {"command": "segment", "drive": "42"}.items()
    assert status["metadata"]["output"] == str(tmp_path / "out")
    assert "street-1 " in jobs("status").out
    assert jobs("logs", "street-1").out == ran.out
    assert jobs("stop", "street-1").err.splitlines()[-1] == "street-1 had ended before"
    again = jobs("submit", "--name", "street-1", "segment", *TINY, *places)
    assert again.status == 2
    assert "there is a job 'street-1' already: choose another --name" in again.err


def test_job__that_fails_says_so(jobs: Callable[..., Ran], tmp_path: Path) -> None:
    places = ["--input", tmp_path / "nowhere", "--output", tmp_path / "out"]
    ran = jobs("submit", "--name", "nowhere", "segment", *TINY, *places)
    assert ran.status == 2  # as of `dinoidd segment` itself
    assert f"there is no file or folder {tmp_path / 'nowhere'}" in ran.out
    assert ran.err.splitlines()[-1] == (
        "nowhere: FAILED. Job entrypoint command failed with exit code 2"
    )
    assert jobs("status", "nowhere").status == 2


def test_job__unknown(jobs: Callable[..., Ran], head: RayHead) -> None:
    for action in (["status"], ["logs"], ["logs", "--follow"], ["stop"]):
        ran = jobs(*action, "no-such")
        assert ran.status == 2
        said = f"dinoidd jobs: there is no job 'no-such' on {head.dashboard}: "
        assert ran.err.splitlines()[-1].startswith(said)


@pytest.mark.slow
def test_train_and_evaluate(jobs: Callable[..., Ran], tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes")
    recipe = ["--recipe", "tiny", "--epochs", "1", "--image-size", "64", "--device", "cpu"]
    ran = jobs("submit", "train", "--data", data, *recipe, "--output", tmp_path / "trained")
    assert ran.status == 0, ran.out + ran.err
    assert "Epoch 1/1 | Train Loss: " in ran.out
    best = tmp_path / "trained" / "best.safetensors"
    assert best.is_file()
    words = ["--data", data, "--checkpoint", best, "--json", tmp_path / "result.json"]
    ran = jobs("submit", "evaluate", *words)
    assert ran.status == 0, ran.out + ran.err
    assert "mean IoU" in ran.out
    assert (tmp_path / "result.json").is_file()


def wait_for(what: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
def test_segment__stopped_and_resumed_by_the_plain_command(
    jobs: Callable[..., Ran], head: RayHead, tmp_path: Path
) -> None:
    images, out = write_plain(tmp_path / "in", 400), tmp_path / "out"
    words = [*TINY, "--rows-per-chunk", "4", "--input", images, "--output", out]
    ran = jobs("submit", "--no-wait", "--name", "first", "segment", *words)
    assert (ran.status, ran.out) == (0, "first\n")
    wait_for(lambda: any(out.glob("_staging/*/chunk-*")))
    status = dinoidd("status", out)
    assert status.status == 0
    assert f"{out}: working, " in status.out
    stopped = jobs("stop", "first")
    assert stopped.status == 0
    assert "STOPPED" in stopped.out
    assert jobs("status", "first").status == 130
    assert "interrupted: what is done is kept" in jobs("logs", "first").out
    halted = dinoidd("status", out, "--json")
    before = json.loads(halted.out)
    assert (halted.status, before["state"], before["session"]) == (1, "stopped", None)
    assert 0 < before["done"] < 400

    dry = jobs("submit", "--dry-run", "--name", "second", "segment", *words)
    (command,) = (x[2:] for x in dry.err.splitlines() if x.startswith("$ "))
    clean = {k: v for k, v in head.environment.items() if k != "RAY_ADDRESS"}
    plain = subprocess.run(
        ["bash", "-c", command], env=clean, capture_output=True, text=True, timeout=240
    )
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert shlex.split(command)[0] == f"RAY_ADDRESS={head.dashboard}"
    assert f"resuming: {before['done']:,} of 400 images are done" in plain.stdout
    assert proof(out).rows == 400
    after = json.loads(dinoidd("status", out, "--json").out)
    assert (after["state"], after["done"], after["left"]) == ("finished", 400, 0)


@pytest.mark.slow
def test_token__is_asked_for_and_taken(tmp_path: Path) -> None:
    with ray_head(token=TOKEN) as head:
        where = ("jobs", "status", "--address", head.dashboard)
        nobody = dinoidd(*where, RAY_AUTH_MODE="disabled")
        assert nobody.status == 2
        assert nobody.err == (
            f"dinoidd jobs: {head.dashboard} lets nobody in without the cluster's token (401: it asks "
            "for a token, and this shell sent none): export RAY_AUTH_MODE=token, and put the token "
            "into ~/.ray/auth_token or RAY_AUTH_TOKEN\n"
        )
        wrong = dinoidd(*where, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 32)
        assert wrong.status == 2
        assert "(403: this shell's token is not the cluster's)" in wrong.err
        none = dinoidd(*where, RAY_AUTH_MODE="token", HOME=str(tmp_path))
        assert none.status == 2
        assert len(none.err.splitlines()) == 1, none.err
        words = ["--address", head.dashboard, "segment", *TINY]
        words += ["--input", tmp_path / "nowhere", "--output", tmp_path / "out"]
        ran = dinoidd("jobs", "submit", *words, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
        assert ran.status == 2
        assert f"there is no file or folder {tmp_path / 'nowhere'}" in ran.out
