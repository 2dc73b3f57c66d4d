"""cluster/skypilot.yaml: its script, with stand-ins for `ray` and `dinoidd`."""

import os
import subprocess
from pathlib import Path

import pytest
from cluster_files import load

RAY = """#!/bin/bash
echo "ray $*" >> "$HOME/log"
case $1 in
    start) echo $$ >> "$HOME/started"; trap 'echo ended >> "$HOME/log"; exit 0' TERM; while :; do /bin/sleep 0.05; done ;;
    list) cat "$HOME/nodes" ;;
    health-check) echo >> "$HOME/asked"; [ "$(wc -l < "$HOME/asked")" -le 3 ] ;;
esac
"""  # noqa: E501
DINOIDD = """#!/bin/bash
echo "$RAY_ADDRESS dinoidd $*" >> "$HOME/log"
exit 3
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    programs = {"ray": RAY, "dinoidd": DINOIDD, "sleep": "#!/bin/bash\n/bin/sleep 0.1\n"}
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name, script in programs.items():
        (tmp_path / "venv/bin" / name).write_text(script)
        (tmp_path / "venv/bin" / name).chmod(0o755)
    (tmp_path / "nodes").write_text('"state": "ALIVE"\n' * 2)
    return tmp_path


def run(home: Path, rank: int) -> tuple[int, list[str]]:
    """The exit status and what was called, on one of two nodes."""
    task = load("skypilot.yaml")
    node = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": str(rank)}
    environment = task["envs"] | node | {"HOME": str(home), "SKYPILOT_NUM_NODES": "2"}
    ran = subprocess.run(
        ["bash", "-c", task["run"]],
        env=environment | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return ran.returncode, (home / "log").read_text().splitlines()


def ended(home: Path) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in (home / "started").read_text().split())


def test_head__leaves_skypilots_own_ray_alone(home: Path) -> None:
    status, called = run(home, 0)
    assert status == 3
    (start,) = [line for line in called if line.startswith("ray start ")]
    assert {"--head", "--block", "--port=6379", "--dashboard-port=8265"} <= set(start.split())
    (segment,) = [line for line in called if "dinoidd segment" in line]
    assert segment.startswith("10.0.0.1:6379 ")
    assert "6380" not in str(called)
    assert "8266" not in str(called)
    assert not any(line.startswith("ray stop") for line in called)
    assert called[-1] == "ended"
    assert ended(home)


def test_head__says_so_where_its_ray_ends(home: Path) -> None:
    (home / "nodes").write_text("")
    (home / "venv/bin/ray").write_text(RAY.replace("while :; do /bin/sleep 0.05; done", "exit 1"))
    status, called = run(home, 0)
    assert status == 1
    assert not any("dinoidd" in line for line in called)


def test_worker__ends_with_the_head(home: Path) -> None:
    status, called = run(home, 1)
    assert status == 0
    assert "ray start --block --address=10.0.0.1:6379" in called
    assert called[-1] == "ended"
    assert ended(home)
