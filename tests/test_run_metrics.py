"""The metrics of a run, and how Prometheus reads them from a node of a real cluster."""

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from images import write_plain
from ray_head import RayHead, ray_head
from test_cluster_watch import OWN

from dinoidd.segment import metrics
from dinoidd.segment.flow import InStage
from dinoidd.segment.tally import Tally

IMAGES, BATCH = 60, 4
GAUGES = {"rows", "rows_done", "chunks_running", "gpu_hours"}
BROKEN = (7, 31)
_SAMPLE = re.compile(r"^ray_dinoidd_(\w+?)(?:\{(.*)\})? ([-+.\deE]+|NaN)$", re.MULTILINE)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(environment={"RAY_metrics_report_interval_ms": "1000"}) as head:
        yield head


def scraped(head: RayHead) -> Samples:
    """Our samples by name and own labels, summed over the processes that told them."""
    url = f"http://127.0.0.1:{head.ports['metrics-export-port']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    except urllib.error.URLError:  # the head takes jobs before it shows metrics
        return {}
    samples: Samples = {}
    for name, labels, value in _SAMPLE.findall(text):
        pairs = re.findall(r'(\w+)="([^"]*)"', labels)
        own = frozenset(p for p in pairs if p[0] in ("status", "kind", "stage", "le"))
        samples[name, own] = samples.get((name, own), 0.0) + float(value)
    return samples


def watch(head: RayHead, driver: subprocess.Popen[str]) -> list[Samples]:
    """What was to be seen at several moments, the last of them after the driver's end."""
    seen = []
    while driver.poll() is None:
        seen.append(scraped(head))
        time.sleep(0.5)
    until = time.monotonic() + 30
    while time.monotonic() < until:  # what was on its way, and what goes with its process
        seen.append(scraped(head))
        names = {name for name, _ in seen[-1]}
        if "images_total" in names and not names & GAUGES:
            break
        time.sleep(0.5)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def seen(head: RayHead, folder: Path) -> list[Samples]:
    images = write_plain(folder / "in", IMAGES)
    for number in BROKEN:
        (images / f"{number:04d}.png").write_bytes(b"no image")
    driver = subprocess.Popen(
        [
            *(sys.executable, "-m", "dinoidd", "segment", "--preset", "tiny", "--device", "cpu"),
            *("--input", images, "--output", folder / "out", "--image-size", "64"),
            *("--batch-size", str(BATCH), "--rows-per-chunk", str(BATCH)),
        ],
        env=head.environment | {"RAY_ADDRESS": f"127.0.0.1:{head.ports['port']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = watch(head, driver)
    out, _ = driver.communicate()
    assert driver.returncode == 0, out
    return seen


def values(samples: Samples, name: str, label: str) -> dict[str, float]:
    return {dict(own)[label]: v for (found, own), v in samples.items() if found == name}


def total(samples: Samples, name: str) -> float:
    return samples[name, frozenset()]


@pytest.mark.slow
def test_metrics__after_a_run_count_all_of_it(seen: list[Samples], folder: Path) -> None:
    last = seen[-1]
    assert values(last, "images_total", "status") == {"ok": IMAGES - 2, "error": 2}
    assert values(last, "errors_total", "kind") == {"not_an_image": 2}
    bytes_read = sum(path.stat().st_size for path in (folder / "in").iterdir())
    assert total(last, "read_bytes_total") == bytes_read
    assert 0 < total(last, "written_bytes_total") < 20_000 * IMAGES
    seconds = values(last, "stage_seconds_total", "stage")
    assert set(seconds) == {"fetch", "decode", "model", "encode", "write"}
    assert min(seconds.values()) > 0
    # An actor tells every second, and is ended with the run: its last words may be lost.
    batches = total(last, "batch_images_count")
    assert 0 < batches <= IMAGES / BATCH
    images = total(last, "batch_images_sum")
    assert BATCH * batches - 2 <= images <= BATCH * batches, "not rounded by Ray's buckets"
    assert images == round(images)
    assert 0 < total(last, "queue_wait_seconds_count") <= IMAGES / BATCH


@pytest.mark.slow
def test_metrics__during_a_run_show_where_it_is(seen: list[Samples]) -> None:
    assert {s["rows", frozenset()] for s in seen if ("rows", frozenset()) in s} == {IMAGES}
    done = [s["rows_done", frozenset()] for s in seen if ("rows_done", frozenset()) in s]
    assert done == sorted(done)
    assert done[-1] == IMAGES
    running = [values(s, "chunks_running", "stage") for s in seen]
    assert {"read", "model", "write"} in [set(stages) for stages in running]
    assert max(stages.get("read", 0) for stages in running) > 0
    assert {s["gpu_hours", frozenset()] for s in seen if ("gpu_hours", frozenset()) in s} == {0}


@pytest.mark.slow
def test_metrics__are_those_that_are_asked_for(seen: list[Samples]) -> None:
    names = {name for samples in seen for name, _ in samples}
    assert names == OWN - {"gpu_memory_bytes"}, "which there is without a GPU"


@pytest.mark.slow
def test_metrics__end_with_their_run(seen: list[Samples]) -> None:
    """Otherwise an alert would go on for a run that is over."""
    assert not GAUGES & {name for name, _ in seen[-1]}


class Recorded:
    """In place of a metric of Ray: what it was told, by its tags."""

    told: ClassVar[dict[str, dict[tuple[str, ...], float]]] = {}

    def __init__(self, name: str, *_: object) -> None:
        self._values = self.told.setdefault(name, {})

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert type(value) is float
        assert value > 0, "Ray raises"
        key = tuple(tags.values())
        self._values[key] = self._values.get(key, 0) + value

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._values[tuple((tags or {}).values())] = value


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[tuple[str, ...], float]]:
    monkeypatch.setattr(Recorded, "told", {})
    for kind in ("Counter", "Gauge"):
        monkeypatch.setattr(metrics, kind, Recorded)
    return Recorded.told


def test_run_metrics__count_what_is_done(told: dict[str, dict[tuple[str, ...], float]]) -> None:
    run = metrics.RunMetrics(rows=100)
    run.resume(40)
    tally = Tally(images=10, ok=7, errors=Counter(missing=2, timeout=1), bytes_read=500)
    tally.seconds["model"] = 2.5
    run.add(tally)
    run.add(Tally(images=5, ok=5, bytes_written=30))
    assert told["dinoidd_rows"] == {(): 100}
    assert told["dinoidd_rows_done"] == {(): 55}
    assert told["dinoidd_images"] == {("ok",): 12, ("error",): 3}
    assert told["dinoidd_errors"] == {("missing",): 2, ("timeout",): 1}
    assert told["dinoidd_read_bytes"] == {(): 500}
    assert told["dinoidd_written_bytes"] == {(): 30}
    assert told["dinoidd_stage_seconds"] == {("model",): 2.5}


def test_run_metrics__gpu_hours_go_on_from_the_sessions_before(
    told: dict[str, dict[tuple[str, ...], float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    run = metrics.RunMetrics(rows=1, gpus=4, gpu_hours=1.5)
    now[0] += 1800
    run.tick({"read": InStage(running=3, waiting=9, finished=0)})
    assert told["dinoidd_gpu_hours"] == {(): 3.5}
    now[0] += 900
    run.tick({"model": InStage(running=9, waiting=9, finished=0, actors=8)})
    assert (run.gpu_hours, run.most_gpus) == (5.5, 8), "of GPUs that joined too"
    assert told["dinoidd_rows"] == {(): 1}, "told again, or Prometheus forgets it"
    assert told["dinoidd_chunks_running"] == {("read",): 0, ("model",): 9, ("write",): 0}


def test_run_metrics__gpu_hours_leave_an_outage_out(
    told: dict[str, dict[tuple[str, ...], float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    run = metrics.RunMetrics(rows=1, gpus=8)
    run.resume(0)
    now[0] += 450
    run.tick({})  # the watch's last look, as the work ends
    now[0] += 600
    run.resume(0)
    now[0] += 450
    run.tick({})
    assert run.gpu_hours == 2.0
