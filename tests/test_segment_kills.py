"""The job under what happens to long runs: killed drivers and workers, signals, a cluster's job queue."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from images import write_plain
from segment_runs import proof

from dinoidd.output.schema import range_of

pytestmark = pytest.mark.timeout(600)
REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = 240
MARK = "DINOIDD_TEST_PROCESSES"
Found = TypeVar("Found")


@dataclass
class Processes:
    """Finds what a test started, Ray's own processes included, by a mark in their environment."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *command: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            list(map(str, command)),
            env=os.environ | environment | {MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def alive(self, title: str = "") -> list[int]:
        """Ids of the marked processes whose command line holds `title`."""
        ids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]
        return [i for i in ids if self._is(i, title)]

    def workers(self) -> list[int]:
        """Ids of those that could still write a row."""
        return [*self.alive("raylet/raylet"), *self.alive("ray::Map")]

    def _is(self, process: int, title: str) -> bool:
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes()
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            return False
        return f"{MARK}={self.mark}".encode() in environment and title.encode() in command

    def end(self) -> None:
        for process in self.alive():
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def processes() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.end()


@dataclass(frozen=True)
class Job:
    """240 small images, in chunks of 8 and files of 48."""

    folder: Path
    processes: Processes

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[str]:
        return self.processes.start(
            *(sys.executable, "-m", "dinoidd", "segment", "--preset", "tiny"),
            *("--input", self.folder / "in", "--output", self.out),
            *("--batch-size", 8, "--rows-per-chunk", 8, "--rows-per-file", 48),
        )

    def wait_for_chunks(self, wanted: int, driver: subprocess.Popen[str]) -> None:
        def there() -> bool:
            done = len(list(self.out.glob("_staging/*/chunk-*")))
            return done + 6 * len(list(self.out.glob("images/part-*"))) >= wanted

        wait_until(lambda: there() or driver.poll() is not None, 240)
        assert driver.poll() is None, driver.communicate()

    def forget_done(self) -> int:
        """Remove the images whose rows are written; how many they were."""
        names = [p.name for p in self.out.glob("_staging/*/*")]
        ranges = [range_of(name, "chunk") for name in names]
        ranges += [range_of(p.name, "part") for p in self.out.glob("images/*")]
        done = {i for found in filter(None, ranges) for i in range(*found)}
        for image in done:
            (self.folder / "in" / f"{image:04d}.png").unlink()
        return len(done)

    def leave_half_written(self) -> list[Path]:
        """What killed writers leave."""
        (staging,) = self.out.glob("_staging/*")
        left = [folder / f".{uuid.uuid4().hex}.tmp" for folder in (staging, self.out / "manifest")]
        for path in left:
            path.write_bytes(b"half")
        return left

    def finish(self) -> str:
        """Run the command to its end; what it logged is returned."""
        driver = self.start()
        _, logged = driver.communicate(timeout=300)
        assert driver.returncode == 0, logged
        return logged

    def check(self) -> None:
        report = proof(self.out)
        assert (report.images, report.rows, report.ok) == (IMAGES, IMAGES, IMAGES)
        assert not (self.out / "_staging").exists()


@pytest.fixture
def job(tmp_path: Path, processes: Processes) -> Job:
    write_plain(tmp_path / "in", IMAGES)
    return Job(tmp_path, processes)


def wait_until(condition: Callable[[], Found], seconds: float) -> Found:
    """What the condition gives, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return found


def test_killed_driver__the_same_command_goes_on(job: Job) -> None:
    driver = job.start()
    job.wait_for_chunks(9, driver)
    driver.kill()
    driver.communicate()
    assert not (job.out / "_SUCCESS").exists()
    wait_until(lambda: not job.processes.workers(), 60)  # Ray goes with its driver
    left = job.leave_half_written()
    assert job.forget_done() >= 9 * 8
    logged = job.finish()
    assert f"of {IMAGES} images are done" in logged
    job.check()  # so what was done was not read again
    assert not [path for path in left if path.exists()]


@pytest.mark.slow
def test_second_driver__ends_with_a_sentence(job: Job) -> None:
    driver = job.start()
    job.wait_for_chunks(1, driver)
    second = job.start()
    _, logged = second.communicate(timeout=60)
    assert second.returncode == 2
    (told,) = (line for line in logged.splitlines() if line.startswith("dinoidd segment: "))
    assert (
        f"another session works on {job.out}: `dinoidd segment` on {socket.gethostname()}" in told
    )
    assert f"process {driver.pid}, since 2" in told
    _, logged = driver.communicate(timeout=300)
    assert driver.returncode == 0, logged
    job.check()


@pytest.mark.slow
def test_killed_driver__twice(job: Job) -> None:
    for chunks in (3, 14):
        driver = job.start()
        job.wait_for_chunks(chunks, driver)
        driver.kill()
        driver.communicate()
        wait_until(lambda: not job.processes.workers(), 60)
    job.finish()
    job.check()


@pytest.mark.slow
def test_killed_model__the_run_goes_on(job: Job) -> None:
    driver = job.start()
    job.wait_for_chunks(3, driver)
    (actor,) = job.processes.alive("MapWorker(MapBatches(SegmentImages))")
    os.kill(actor, signal.SIGKILL)
    _, logged = driver.communicate(timeout=300)
    assert driver.returncode == 0, logged
    job.check()


@pytest.mark.slow
def test_killed_reader_or_writer__the_run_goes_on(job: Job) -> None:
    driver = job.start()
    job.wait_for_chunks(3, driver)
    for worker in wait_until(lambda: tasks(job), 60):
        os.kill(worker, signal.SIGKILL)
    _, logged = driver.communicate(timeout=300)
    assert driver.returncode == 0, logged
    job.check()


def tasks(job: Job) -> list[int]:
    """The processes that read or write at this moment."""
    return [
        *job.processes.alive("ray::MapBatches(read"),
        *job.processes.alive("ray::MapBatches(wr"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signal__ends_promptly_and_can_be_resumed(job: Job, sent: signal.Signals) -> None:
    driver = job.start()
    job.wait_for_chunks(5, driver)
    asked = time.monotonic()
    driver.send_signal(sent)
    _, logged = driver.communicate(timeout=60)
    assert time.monotonic() - asked < 20
    assert driver.returncode == 130
    assert "what is done is kept; run the same command again to resume" in logged
    assert "Traceback" not in logged
    wait_until(lambda: not job.processes.alive(), 60)
    job.finish()
    job.check()


@dataclass(frozen=True)
class Head:
    """A Ray head node, and its job queue's address."""

    processes: Processes
    dashboard: str
    environment: dict[str, str]

    def submit(
        self, code: Path, *arguments: object, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = ["--working-dir", code, *options, "--", "python", "jobs/segment.py"]
        return self.job("submit", *command, *arguments)

    def job(self, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["ray", "job", verb, "--address", self.dashboard, *arguments]
        return subprocess.run(
            [*map(str, command)],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture
def head(processes: Processes) -> Iterator[Head]:
    """`ray start --head` on free ports, ended by the ids of its processes: `ray stop` would end
    every Ray of the machine."""
    ports = free_ports(4)
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment["RAY_ADDRESS"] = ""
    started = processes.start(
        *("ray", "start", "--head", "--block", "--num-cpus", 4, "--disable-usage-stats"),
        *("--port", ports[0], "--dashboard-port", ports[1], "--ray-client-server-port", ports[2]),
        *("--dashboard-agent-listen-port", ports[3], "--node-ip-address", "127.0.0.1"),
        *("--temp-dir", folder, "--include-dashboard", "true"),
        **environment,
    )
    wait_until(lambda: answers(ports[1]) and answers(ports[3]), 60)
    assert started.poll() is None
    yield Head(processes, f"http://127.0.0.1:{ports[1]}", environment)
    started.terminate()
    started.communicate(timeout=60)
    processes.end()
    shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def copy_code(code: Path) -> None:
    for part in ("dinoidd", "jobs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / part, code / part, ignore=ignored)


@pytest.mark.slow
def test_job_submit__its_exit_status_is_the_run_s(head: Head, tmp_path: Path) -> None:
    code = tmp_path / "code"
    copy_code(code)
    write_plain(tmp_path / "in", 20)
    paths = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--preset", "tiny"]
    ran = head.submit(code, *paths)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "images   20 (20 ok, 0 errors)" in ran.stdout
    assert proof(tmp_path / "out").ok == 20
    ran = head.submit(code, *paths, "--image-size", 96)
    assert ran.returncode == 1
    assert "image size was 256 and is 96" in ran.stdout + ran.stderr
    (tmp_path / "in" / "0000.png").unlink()
    again = [*paths[:2], "--output", tmp_path / "other", *paths[4:], "--max-error-rate", 0]
    (tmp_path / "in" / "0001.png").write_bytes(b"")
    ran = head.submit(code, *again)
    assert ran.returncode == 1
    assert "of the images are error rows" in ran.stdout + ran.stderr


@pytest.mark.slow
def test_job_stop__says_how_to_go_on(head: Head, tmp_path: Path) -> None:
    code = tmp_path / "code"
    copy_code(code)
    write_plain(tmp_path / "in", IMAGES)
    paths = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--preset", "tiny"]
    pieces = ["--batch-size", 8, "--rows-per-chunk", 8, "--rows-per-file", 48]
    head.submit(code, *paths, *pieces, options=["--no-wait", "--submission-id", "stopped"])
    wait_until(lambda: len(list((tmp_path / "out").glob("_staging/*/chunk-*"))) >= 3, 120)
    stopped = head.job("stop", "stopped")
    assert "was stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    logged = head.job("logs", "stopped").stdout
    assert "run the same command again to resume" in logged
    assert not (tmp_path / "out" / "_session").exists()
    ran = head.submit(code, *paths, *pieces)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "images are done" in ran.stdout
    assert proof(tmp_path / "out").ok == IMAGES
