"""cluster/grafana and cluster/prometheus: they ask for metrics that exist, by their names."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cluster_files import CLUSTER, load, text

# What a run counts; as Ray shows it, with `ray_` before, and `_total` after a counter.
OWN = {
    "images_total",
    "errors_total",
    "read_bytes_total",
    "written_bytes_total",
    "stage_seconds_total",
    "batch_images_bucket",
    "batch_images_sum",
    "batch_images_count",
    "queue_wait_seconds_bucket",
    "queue_wait_seconds_sum",
    "queue_wait_seconds_count",
    "gpu_memory_bytes",
    "rows",
    "rows_done",
    "chunks_running",
    "gpu_hours",
}
LABELS = {"status", "kind", "stage", "instance", "GpuIndex", "le"}


def dashboard() -> dict:
    return json.loads(text("grafana/dinoidd.json"))


def expressions() -> list[str]:
    panels = [t["expr"] for panel in dashboard()["panels"] for t in panel["targets"]]
    rules = [rule["expr"] for rule in load("prometheus/alerts.yml")["groups"][0]["rules"]]
    return panels + rules


def ray_metrics() -> set[str]:
    import ray

    path = Path(ray.__file__).parent / "dashboard/modules/reporter/reporter_agent.py"
    return set(re.findall(r'^    "(node_\w+)": Gauge', path.read_text(), re.M))


def test_expressions__name_metrics_that_there_are() -> None:
    known = {f"ray_dinoidd_{name}" for name in OWN} | {f"ray_{name}" for name in ray_metrics()}
    for expression in expressions():
        named = set(re.findall(r"\bray_\w+", expression))
        assert named, expression
        assert named <= known, named - known


def test_expressions__use_labels_that_there_are() -> None:
    for expression in expressions():
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert set(re.split(r", *", labels)) <= LABELS, expression
        assert set(re.findall(r"(\w+)=\"", expression)) <= LABELS, expression


def test_dashboard__shows_what_was_promised() -> None:
    titles = {panel["title"] for panel in dashboard()["panels"]}
    assert titles >= {
        *("Images a second", "Errors by kind", "GPU use", "GPU memory"),
        *("Time by stage", "Queue by stage", "Time left", "GPU cost of the model actors"),
    }


def test_dashboard__panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        across = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in across for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_dashboard__works_with_any_prometheus() -> None:
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {"${datasource}"}
    names = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert names == ["datasource", "gpu_price"]
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_alerts__cover_standstill_errors_and_idle_gpus() -> None:
    rules = load("prometheus/alerts.yml")["groups"][0]["rules"]
    assert [r["alert"] for r in rules] == [
        "DinoiddNoProgress",
        "DinoiddErrorShare",
        "DinoiddGPUsIdle",
    ]
    for rule in rules:
        assert {"for", "labels", "annotations"} <= set(rule)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_alerts__fire_when_they_should() -> None:
    command = ["promtool", "test", "rules", str(CLUSTER / "prometheus/alerts_test.yml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
