"""Training on a cluster of several nodes, from bucket to bucket, one of whose nodes is taken away."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cluster_files import ROOT
from conftest import S3
from ray_head import free_ports
from ray_trainings import TIMES, make_scenes

from dinoidd.bench.fault_cluster import FaultCluster

EPOCHS, KILL_AFTER, WORKERS = 24, 5, 2
SETTINGS = (
    *("--preset", "tiny", "--image-size", "64", "--batch-size", "4", "--epochs", EPOCHS),
    *("--device", "cpu", "--workers", WORKERS),
    *("--set", "loss.points=200", "optimizer.learning_rate=3e-3", "threads=1"),
)


class Bucket:
    """With the scenes in it, and the outputs of trainings."""

    def __init__(self, s3: S3, scenes: Path) -> None:
        self.name, self._client = s3.new_bucket(), s3.client()
        self._endpoint = s3.endpoint_url
        for file in sorted(scenes.rglob("*.*")):
            self._client.upload_file(str(file), self.name, f"data/{file.relative_to(scenes)}")

    def train(self, run: str, cluster: FaultCluster, log: Path) -> subprocess.Popen[bytes]:
        """`jobs/train.py` as the cluster starts it: a driver beside the head."""
        places = {name: f"s3://{self.name}/{name}" for name in ("data", "cache")}
        places["output"] = f"s3://{self.name}/{run}"
        words = [f"--{name}={place}" for name, place in places.items()]
        command = [sys.executable, "jobs/train.py", *words, f"--endpoint-url={self._endpoint}"]
        environment = os.environ | {
            "RAY_ADDRESS": cluster.address,
            "RAY_AUTH_MODE": "disabled",
            "PYTHONPATH": str(ROOT),
        }
        with log.open("wb") as said:
            return subprocess.Popen(
                [*command, *map(str, SETTINGS)], env=environment, stdout=said, stderr=said, cwd=ROOT
            )

    def curve(self, run: str) -> list[dict[str, Any]]:
        """The epochs that are done, without how long they took."""
        try:
            body = self._client.get_object(Bucket=self.name, Key=f"{run}/metrics.jsonl")["Body"]
        except ClientError:  # none is done
            return []
        rows = [json.loads(line) for line in body.read().splitlines()]
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]

    def tensorboard_steps(self, run: str, last: int) -> list[int]:
        """Those of the mIoU that TensorBoard shows of the bucket, once it has read as far as `last`."""
        tensorboard, port = Path(sys.executable).with_name("tensorboard"), free_ports(1)[0]
        command = [tensorboard, "--load_fast=false", "--host=127.0.0.1", f"--port={port}"]
        server = subprocess.Popen(
            [*command, f"--logdir=s3://{self.name}/{run}/tensorboard"],
            env=os.environ | {"AWS_ENDPOINT_URL_S3": self._endpoint},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=.&tag=val%2FmIoU"
        until, steps = time.monotonic() + 90, [0]
        while steps[-1] < last and time.monotonic() < until:
            with contextlib.suppress(OSError):  # not yet
                points = json.load(urllib.request.urlopen(url, timeout=9))
                steps = [step for _, step, _ in points]
            time.sleep(0.5)
        server.terminate()
        server.wait(20)
        return steps

    def keys(self, run: str) -> set[str]:
        listed = self._client.list_objects_v2(Bucket=self.name, Prefix=f"{run}/")["Contents"]
        return {entry["Key"].removeprefix(f"{run}/") for entry in listed}


def kill_a_node_that_trains(cluster: FaultCluster) -> str:
    """All its processes at once, as a spot machine goes."""
    names = cluster.node_names()
    (victim, *_) = [n for n in names if cluster.processes("RayTrainWorker", n)]
    cluster.kill_node(victim)
    return victim


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_train__node_taken_away_costs_an_epoch_at_most(s3: S3, tmp_path: Path) -> None:
    bucket = Bucket(s3, make_scenes(tmp_path / "scenes"))
    log = tmp_path / "killed.log"
    with FaultCluster(nodes=WORKERS + 1) as cluster:  # a node more than there are workers
        driver = bucket.train("killed", cluster, log)
        until = time.monotonic() + 200
        while len(bucket.curve("killed")) < KILL_AFTER:
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < until, "it took too long"
            time.sleep(0.2)
        victim = kill_a_node_that_trains(cluster)
        done = len(bucket.curve("killed"))
        assert KILL_AFTER <= done < EPOCHS, "it died in the middle"
        assert driver.wait(200) == 0, log.read_text()
        assert victim not in cluster.node_names()
        undisturbed = bucket.train("undisturbed", cluster, tmp_path / "undisturbed.log")
        assert undisturbed.wait(200) == 0, (tmp_path / "undisturbed.log").read_text()

    curve, said = bucket.curve("killed"), log.read_text()
    told = [int(epoch) for epoch in re.findall(rf"Epoch (\d+)/{EPOCHS} \|", said)]
    assert sorted(set(told)) == list(range(1, len(curve) + 1))
    (step,) = re.findall(r"the workers start again, after step (\d+)", said)
    assert int(step) >= curve[done - 2]["step"], "more than the last epoch was done again"
    assert curve == bucket.curve("undisturbed")
    assert {"best.safetensors", "last.safetensors", "summary.json"} <= bucket.keys("killed")
    steps = [row["step"] for row in curve]
    shown = bucket.tensorboard_steps("killed", steps[-1])
    assert list(dict.fromkeys(shown)) == steps  # the epoch that was done again may be there twice
