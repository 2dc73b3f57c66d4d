"""cluster/local.sh as a user has it: a job on several nodes that loses one of them.

It is watched meanwhile by a real Prometheus, and at the dashboard by a real browser.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from browser import CHROMIUM, Browser
from cluster_files import CLUSTER, ROOT
from images import write_plain
from ray_head import CLEARED
from ray_trainings import children
from test_cluster_watch import expressions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
IMAGES, BROKEN = 900, 12
OUTPUT = "s3://streets/out"
FOLDED = ["Ray Data Overview", "Task Table", "Actor Table"]  # of a job's page
NAMES = ("head", "worker-1", "worker-2", "s3", "prometheus", "grafana")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed: apt install prometheus"
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt install chromium"
)


class LocalCluster:
    """What `local.sh up` has started."""

    def __init__(self, state: Path, programs: Path) -> None:
        self.state = state
        clean = {k: v for k, v in os.environ.items() if k not in CLEARED}
        self.environment = clean | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DINOIDD_CLUSTER": str(state),
        }
        self.script("up")
        self.environment |= self._variables("env")
        self.ports = self._variables("settings")

    def _variables(self, name: str) -> dict[str, str]:
        lines = (self.state / name).read_text().splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def script(self, *words: str, status: int = 0) -> str:
        """What `local.sh WORDS` says."""
        command = [str(CLUSTER / "local.sh"), *words]
        ran = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=240
        )
        assert ran.returncode == status, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def dinoidd(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dinoidd", *map(str, words)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=300, cwd=ROOT
        )

    def processes(self, name: str) -> list[int]:
        process = int((self.state / f"{name}.pid").read_text().split()[0])
        return [process, *children(process)]

    def ask(self, path: str, **query: str) -> Any:
        """Prometheus' answer."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        return json.load(urllib.request.urlopen(url, timeout=20))["data"]

    def value(self, expression: str) -> float | None:
        """Of the first series; None where there is none."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def api(self, path: str, token: str | None = None) -> Any:
        """The dashboard's answer."""
        request = urllib.request.Request(self.environment["RAY_ADDRESS"] + path)
        request.add_header("Authorization", f"Bearer {token or self.token}")
        return json.load(urllib.request.urlopen(request, timeout=20))

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def status(self) -> dict[str, Any]:
        """What `dinoidd status` tells; nothing before the run has begun."""
        said = self.dinoidd("status", OUTPUT, "--json").stdout
        return json.loads(said) if said else {"done": 0}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    folder = Path(tempfile.mkdtemp(prefix="dc-", dir="/tmp"))  # sockets want a short path
    grafana = folder / "grafana-server"  # in the place of a real one, which no package index has
    grafana.write_text('#!/bin/sh\nenv > "$GF_PATHS_DATA.env"; echo "$@"; exec sleep 1000\n')
    grafana.chmod(0o755)
    cluster = LocalCluster(folder / "c", folder)
    yield cluster
    left = [
        p
        for name in NAMES
        if (cluster.state / f"{name}.pid").exists()
        for p in cluster.processes(name)
    ]
    cluster.script("down")
    assert [p for p in left if Path(f"/proc/{p}").exists() and not is_zombie(p)] == []
    assert not cluster.state.exists()
    shutil.rmtree(folder)


def is_zombie(process: int) -> bool:
    """Ended, and not yet noticed by the machine's first process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def listening(processes: list[int]) -> set[str]:
    """Local addresses, as the kernel writes them, on which any of these processes listens."""
    sockets = set()
    for process in processes:
        for entry in Path(f"/proc/{process}/fd").glob("*"):
            try:
                sockets.add(str(entry.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(local.partition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_up__is_three_nodes_that_keep_to_themselves(cluster: LocalCluster) -> None:
    for name in NAMES[:4]:
        heard = listening(cluster.processes(name))
        assert heard, name
        assert heard <= LOOPBACK, f"{name} listens on {heard - LOOPBACK}"
    nodes = cluster.api("/api/v0/nodes?detail=true")["data"]["result"]["result"]
    resources = sorted(
        (
            n["resources_total"].get("CPU", 0),
            *(r for r in n["resources_total"] if r.startswith("worker")),
        )
        for n in nodes
    )
    assert resources == [(0,), (3, "worker-1"), (3, "worker-2")]
    assert cluster.state.stat().st_mode & 0o077 == 0
    assert (cluster.state / "token").stat().st_mode & 0o077 == 0


def test_up__asks_for_the_token(cluster: LocalCluster) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        cluster.api("/api/jobs/", token="f" * 64)


def test_up__grafana_is_given_the_dashboards(cluster: LocalCluster) -> None:
    words = (cluster.state / "grafana.log").read_text().split()
    config = Path(words[words.index("--config") + 1])
    assert "allow_embedding = true" in config.read_text()
    assert "http_addr" not in config.read_text(), "which the environment decides"
    assert "GF_SERVER_HTTP_ADDR=127.0.0.1\n" in (cluster.state / "grafana.env").read_text()
    assert (config.parent / "dashboards/dinoidd.json").is_file()
    (source,) = (config.parent / "provisioning/datasources").iterdir()
    assert f"http://127.0.0.1:{cluster.ports['prometheus']}" in source.read_text()


def test_up__again_changes_nothing(cluster: LocalCluster) -> None:
    before = {name: (cluster.state / f"{name}.pid").read_text() for name in NAMES[:4]}
    assert "worker-2: runs" in cluster.script("up")
    assert {name: (cluster.state / f"{name}.pid").read_text() for name in NAMES[:4]} == before


@dataclass
class Watched:
    """A run, and what was seen of it while it worked."""

    pictures: Path
    pages: dict[str, str] = field(default_factory=dict)
    series: dict[str, list[Any]] = field(default_factory=dict)  # by expression
    targets: list[Any] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)  # `dinoidd status`, Prometheus, and again
    rows_done: float = 0.0
    after: dict[str, Any] = field(default_factory=dict)
    missing: str = ""  # on the dashboard's pages
    killed_at: int = 0
    log: str = ""
    job: dict[str, Any] = field(default_factory=dict)


def wait_until(what: Any, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.5)


def submit(cluster: LocalCluster, folder: Path) -> None:
    """Segment a bucket, some of whose images are none."""
    images = write_plain(folder / "in", IMAGES)
    for number in range(BROKEN):
        (images / f"{number:04d}.png").write_bytes(b"no image")
    names = {k: v for k, v in cluster.environment.items() if k.startswith("AWS_")}
    client = boto3.session.Session(
        names["AWS_ACCESS_KEY_ID"], names["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
    ).client("s3", endpoint_url=names["AWS_ENDPOINT_URL_S3"])
    client.create_bucket(Bucket="streets")
    for image in images.iterdir():
        client.upload_file(str(image), "streets", f"in/{image.name}")
    words = ["--preset", "tiny", "--actors", "2", "--rows-per-chunk", "8"]
    words += ["--input", "s3://streets/in/", "--output", OUTPUT]
    ran = cluster.dinoidd("jobs", "submit", "--no-wait", "--name", "streets", "segment", *words)
    assert ran.returncode == 0, ran.stderr


def watch_metrics(cluster: LocalCluster, seen: Watched) -> None:
    """Every expression of the dashboard and of the alerts, and the same moment by `dinoidd status`."""
    rate = (
        "sum(rate(ray_dinoidd_batch_images_count[5m]))"  # the last to come: of actors, and a rate
    )
    wait_until(lambda: cluster.value(rate))
    seen.before = cluster.status()
    done = "sum(ray_dinoidd_rows_done)"
    wait_until(lambda: (cluster.value(done) or 0) >= seen.before["done"])
    seen.rows_done = cluster.value(done) or 0
    for expression in expressions():
        asked = expression.replace("$gpu_price", "1")
        seen.series[expression] = cluster.ask("query", query=asked)["result"]
    seen.after = cluster.status()
    seen.targets = cluster.ask("targets")["activeTargets"]


@contextmanager
def halted(cluster: LocalCluster) -> Iterator[None]:
    """The models stand still, so that there is time to look around."""
    actors = [
        process
        for name in ("worker-1", "worker-2")
        for process in cluster.processes(name)
        if b"MapWorker(MapBatches(SegmentImages))" in Path(f"/proc/{process}/cmdline").read_bytes()
    ]
    assert len(actors) == 2
    for process in actors:
        os.kill(process, signal.SIGSTOP)
    yield
    for process in actors:
        os.kill(process, signal.SIGCONT)


async def look_at_dashboard(cluster: LocalCluster, seen: Watched, profile: Path) -> None:
    """What a person opens: the jobs, this one, its actors, and the page of metrics."""
    address = cluster.environment["RAY_ADDRESS"]
    (job,) = (j for j in cluster.api("/api/jobs/") if j["submission_id"] == "streets")
    pages = {  # where, what it shows, and what is opened on it
        "jobs": ("#/jobs", ["streets", "RUNNING"], []),
        "job": (f"#/jobs/{job['job_id']}", ["Ray Data Overview", "Actor Table"], FOLDED),
        "actors": ("#/actors", ["SegmentImages"], []),
        "cluster": ("#/cluster", ["ALIVE"], []),
        "metrics": ("#/metrics", ["Prometheus and Grafana"], []),
    }
    async with Browser(profile) as browser:
        for name, (place, words, folded) in pages.items():
            await browser.open("about:blank")
            await browser.open(f"{address}/{place}", {"ray-authentication-token": cluster.token})
            await browser.wait_for(*words)
            for part in folded:
                await browser.click(part)
            if folded:
                await browser.wait_for("SegmentImages_")
                await browser.unfold("SegmentImages_")
            await asyncio.sleep(3)  # it is fetched and drawn
            seen.pages[name] = await browser.text()
            await browser.picture(seen.pictures / f"{name}.png")
        prometheus = f"http://127.0.0.1:{cluster.ports['prometheus']}"
        query = urllib.parse.urlencode(
            {"g0.expr": "sum(ray_dinoidd_rows_done)", "g0.tab": "0", "g0.range_input": "2m"}
        )
        await browser.open(f"{prometheus}/graph?{query}")
        seen.pages["prometheus"] = await browser.wait_for("Graph", "Load time")
        await asyncio.sleep(2)
        await browser.picture(seen.pictures / "prometheus.png")


@pytest.fixture(scope="module")
def run(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("run")
    seen = Watched(pictures=folder)
    submit(cluster, folder)
    wait_until(lambda: cluster.status()["done"])
    if shutil.which("prometheus"):
        watch_metrics(cluster, seen)
    if CHROMIUM:
        with halted(cluster):
            try:
                asyncio.run(look_at_dashboard(cluster, seen, folder / "profile"))
            except AssertionError as error:  # for the dashboard's own test
                seen.missing = str(error)
    seen.killed_at = cluster.status()["done"]
    cluster.script("kill", "worker-2")
    seen.log = cluster.dinoidd("jobs", "logs", "--follow", "streets").stdout
    seen.job = json.loads(cluster.dinoidd("jobs", "status", "--json", "streets").stdout)
    return seen


def test_run__survives_a_node(cluster: LocalCluster, run: Watched) -> None:
    assert 0 < run.killed_at < IMAGES, "the node died in the middle"
    assert run.job["status"] == "SUCCEEDED", run.log
    assert "worker-2: has ended" in cluster.script("status")
    verified = cluster.dinoidd("verify", OUTPUT, "--all")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    status = cluster.status()
    assert (status["state"], status["done"], status["left"]) == ("finished", IMAGES, 0)
    assert status["errors"] == {"not_an_image": BROKEN}
    assert "worker-2: runs" in cluster.script("up"), "a dead node comes back"


def test_run__its_log_is_without_noise(run: Watched) -> None:
    lines = run.log.splitlines()
    assert len(lines) < 80, run.log
    for noise in ("Traceback", "[state-dump]", "retries remaining", " E "):
        assert noise not in run.log
    assert run.log.count("has been marked dead") <= 1, "said once"


@needs_prometheus
def test_prometheus__reads_every_node(run: Watched) -> None:
    assert {t["health"] for t in run.targets} == {"up"}
    assert len(run.targets) >= 3


@needs_prometheus
@pytest.mark.parametrize("expression", expressions())
def test_prometheus__has_what_the_dashboard_asks_for(run: Watched, expression: str) -> None:
    if any(word in expression for word in ("gpus_", "gram_", "gpu_memory")):
        pytest.skip("there is no GPU to measure")
    alert = " > 0.1" in expression or "increase(ray_dinoidd_images_total[15m]))" in expression
    assert run.series[expression] or alert, "no series"


@needs_prometheus
def test_prometheus__tells_the_same_as_status(run: Watched) -> None:
    assert run.before["done"] <= run.rows_done <= run.after["done"]
    assert run.series["(sum(ray_dinoidd_rows) - sum(ray_dinoidd_rows_done))"]


@needs_chromium
def test_dashboard__names_can_be_read(run: Watched) -> None:
    assert run.missing == ""
    assert "jobs/segment.py" in run.pages["jobs"]
    for stage in ("read_rows", "SegmentImages", "write_rows"):
        assert f"MapBatches({stage})" in run.pages["job"], run.pages["job"]
    assert "MapWorker(MapBatches(SegmentImages))" in run.pages["actors"]
    for name in run.pages:
        assert (run.pictures / f"{name}.png").stat().st_size > 10_000
