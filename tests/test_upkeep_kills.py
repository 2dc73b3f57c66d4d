"""`dinoidd retry` and `dinoidd compact` killed with SIGKILL: the same command goes on."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from images import write_plain
from segment_runs import proof, rows_of
from test_segment_kills import Processes, wait_until

from dinoidd.output.reader import COMPACTION, RETRY, RETRY_STATE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
IMAGES = 240
BROKEN = range(0, IMAGES, 3)


@pytest.fixture
def processes() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.end()


@pytest.fixture
def out(tmp_path: Path, processes: Processes) -> Path:
    """A finished run of 240 images in 60 files, every third image broken on disk."""
    write_plain(tmp_path / "in", IMAGES)
    for number in BROKEN:
        (tmp_path / "in" / f"{number:04d}.png").write_bytes(b"no image")
    status, told = end_of(
        start(processes, "segment", "--preset", "tiny", "--input", tmp_path / "in", "--output",
              tmp_path / "out", "--batch-size", 4, "--rows-per-chunk", 4, "--rows-per-file", 4)
    )  # fmt: skip
    assert status == 0, told
    assert len(list((tmp_path / "out" / "images").iterdir())) == IMAGES // 4
    return tmp_path / "out"


def start(processes: Processes, *arguments: object) -> subprocess.Popen[str]:
    return processes.start(sys.executable, "-m", "dinoidd", *arguments)


def end_of(driver: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = driver.communicate(timeout=400)
    return driver.returncode, out + err


def kill_when(
    there: Callable[[], bool], driver: subprocess.Popen[str], processes: Processes
) -> None:
    wait_until(lambda: there() or driver.poll() is not None, 300)
    assert driver.poll() is None, driver.communicate()
    driver.kill()
    driver.communicate()
    wait_until(lambda: not processes.workers(), 120)


def test_compact__killed_driver(out: Path, processes: Processes) -> None:
    before, images = rows_of(out), out / "images"
    size = 4 * sum(p.stat().st_size for p in images.iterdir()) // (IMAGES // 4)
    command = ("compact", out, "--file-size", f"{size}B")
    for wanted in (1, 8):  # large files
        large = [f"part-{i:012d}-{i + 16:012d}.parquet" for i in range(0, IMAGES, 16)]
        driver = start(processes, *command)
        kill_when(
            lambda: sum((images / name).exists() for name in large) >= wanted,  # noqa: B023
            driver,
            processes,
        )
        assert (out / COMPACTION).exists()
        assert not (out / "_SUCCESS").exists()
    status, told = end_of(start(processes, *command))
    assert status == 0, told
    assert "finishing the compaction" in told
    assert len(list(images.iterdir())) == IMAGES // 16
    assert rows_of(out) == before
    proof(out)


def test_retry__killed_driver(out: Path, processes: Processes) -> None:
    folder = out.parent / "in"
    for number in BROKEN[:-2]:
        shutil.copy(folder / "0001.png", folder / f"{number:04d}.png")
    stamps = {p: p.stat().st_mtime_ns for p in (out / "images").iterdir()}
    moments: list[Callable[[], bool]] = [
        (out / RETRY / RETRY_STATE).exists,
        lambda: bool(list((out / RETRY).glob("_staging/*/chunk-*"))),
        lambda: any(p.stat().st_mtime_ns != before for p, before in stamps.items()),
    ]
    command = ("retry", out, "--batch-size", 4, "--rows-per-chunk", 4)
    for moment in moments:
        kill_when(moment, start(processes, *command), processes)
        proof(out)
    status, told = end_of(start(processes, *command))
    assert status == 0, told
    assert "going on with the retry" in told
    report = proof(out)
    assert (report.rows, report.ok) == (IMAGES, IMAGES - 2)
    record = json.loads((out / "run.json").read_text())
    (entry,) = record["retries"]
    assert (entry["tried"], entry["mended"]) == (len(BROKEN), len(BROKEN) - 2)
    assert not (out / RETRY).exists()
