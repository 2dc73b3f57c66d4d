"""Kills of every kind at random moments: nothing lost, nothing double, every row ok."""

from pathlib import Path

import pytest
from conftest import S3

from dinoidd.bench.faults import KINDS, FaultConfig, FaultReport, format_faults, measure_faults
from dinoidd.cli import main
from dinoidd.errors import ConfigError

pytestmark = pytest.mark.timeout(2400)  # of all kills; a few minutes where nothing else runs


@pytest.mark.slow
def test_faults__twenty_kills_lose_nothing(tmp_path: Path) -> None:
    report = measure_faults(FaultConfig(kills=20, images=2_000, seed=4), str(tmp_path))
    print(format_faults(report))  # shown where it fails
    assert report.problems == []
    assert report.kills.total() == 20
    assert set(report.kills) == set(KINDS)
    assert report.writing >= 1
    assert report.images == report.runs * 2_000
    assert report.sessions == report.runs + report.kills["driver"]


@pytest.mark.slow
def test_faults__kills_lose_nothing_in_a_bucket(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real S3 server; a driver that is killed is followed by the same command."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    config = FaultConfig(kills=6, images=400, nodes=2, seed=1)
    where = f"s3://{s3.new_bucket()}/runs"
    report = measure_faults(config, str(tmp_path), where)
    print(format_faults(report))
    assert report.problems == []
    assert (report.lost, report.doubled) == (0, 0)
    assert report.kills.total() == 6
    assert {"actor", "task", "driver"} <= set(report.kills)
    assert report.images == report.runs * 400
    assert report.sessions == report.runs + report.kills["driver"]


def test_fault_config__mistakes() -> None:
    with pytest.raises(ConfigError, match="--kills 0, --nodes 3: at least 1 is needed"):
        FaultConfig(kills=0)
    with pytest.raises(ConfigError, match="--images 10: at least 128 are needed"):
        FaultConfig(images=10)


def test_bench_faults__a_loss_is_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = FaultReport(seed=7, runs=1, sessions=2, images=1_999, seconds=100.0)
    report.kills.update({"actor": 2, "node": 1})
    monkeypatch.setattr("dinoidd.bench.faults.measure_faults", lambda *_: report)
    assert main(["bench", "faults", "--kills", "3"]) == 0
    assert "verdict   every row ok, exit status 0" in capsys.readouterr().out
    report.lost, report.problems = 1, ["image 12 has no row"]
    assert main(["bench", "faults", "--kills", "3"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "seed      7",
        "kills     3 (actor 2, node 1; 0 left a half written file)",
        "runs      1, in 2 sessions",
        "rows      1,999 in 1m40s (20.0 images/s): 1 lost, 0 double",
        "verdict   FAILED, exit status 1",
        "- image 12 has no row",
    ]
