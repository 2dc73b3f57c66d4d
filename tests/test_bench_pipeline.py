"""`dinoidd bench pipeline`: the arithmetic of its figures, and the whole of it on few images."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from segment_runs import command, embedded_ray

from dinoidd.bench.pipeline import PipelineSpeed, Rate, format_speed
from dinoidd.bench.workers import WorkerPeaks


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


def speed_of(**values: Any) -> PipelineSpeed:
    known: dict[str, Any] = {
        "images": 2000,
        "rows_per_chunk": 64,
        "threads": 1,
        "cores": 2,
        "model_alone": Rate(images_per_second=25.0, core_seconds=0.04),
        "plain_loop": Rate(images_per_second=20.0, core_seconds=0.048),
        "pipeline": 24.0,
        "startup_seconds": 12.4,
        "stage_seconds": {"fetch": 1.0, "decode": 8.0, "model": 80.0, "encode": 10.0, "write": 1.0},
        "object_store_bytes": 600_000_000,
        "peak_bytes": {"driver": 900_000_000, "model": 1_500_000_000},
    }
    return PipelineSpeed(**known | values)


def test_speed__ratios() -> None:
    speed = speed_of()
    assert speed.over_model_alone == pytest.approx(0.96)
    assert speed.over_plain_loop == pytest.approx(1.2)
    assert speed.actor_busy == pytest.approx(24 * 80 / 2000)


def test_speed__attainable_is_what_the_cores_leave() -> None:
    assert speed_of().attainable == 1, "2 cores, 25 * 0.048 = 1.2 are needed"
    both = speed_of(
        threads=2,
        model_alone=Rate(images_per_second=40.0, core_seconds=0.05),
        plain_loop=Rate(images_per_second=30.0, core_seconds=0.0625),
    )
    assert both.attainable == pytest.approx(2 / 0.0625 / 40)


def test_format_speed__says_where_the_time_went() -> None:
    assert format_speed(speed_of()).splitlines() == [
        "images          2,000 in pieces of 64; threads of torch: 1, on 2 cores",
        "model alone         25.0 images/s",
        "plain loop          20.0 images/s (one process, reads ahead)",
        "pipeline            24.0 images/s (Ray, after 12 s of start-up)",
        "pipeline over model alone  0.96 (the cores leave room for 1.00: an image takes 48.0 ms of "
        "them in all, 40.0 ms the model alone)",
        "pipeline over plain loop   1.20",
        "the model's actor busy     96%",
        "an image's time, by stage  fetch 0.5 ms (1%), decode 4.0 ms (8%), model 40.0 ms (80%), "
        "encode 5.0 ms (10%), write 0.5 ms (1%)",
        "through the object store   300.0 kB an image, 600.0 MB in all",
        "peak memory of a process   driver 900.0 MB, model 1.5 GB",
    ]


def test_bench_pipeline__with_a_model_that_sleeps(local_ray: None) -> None:
    sizes = ("--images", 48, "--batch-size", 8, "--image-size", 64)
    ran = command("bench", "pipeline", *sizes, "--model-ms", 10, "--threads", 1, "--json")
    assert ran.status == 0, ran.err
    speed = json.loads(ran.out)
    assert (speed["images"], speed["rows_per_chunk"], speed["threads"]) == (48, 16, 1)
    assert 0 < speed["model_alone"]["images_per_second"] < 100, "it sleeps 10 ms an image"
    assert speed["pipeline"] > 0
    assert 0 < speed["actor_busy"] < 1.5
    squares = 48 * 64 * 64 * 3
    assert squares < speed["object_store_bytes"] < squares + 48 * 3_000_000
    assert min(speed["stage_seconds"].values()) > 0
    assert speed["peak_bytes"].keys() >= {"driver", "model"}
    assert min(speed["peak_bytes"].values()) > 50_000_000


def test_worker_peaks__of_processes_below_this_one(tmp_path: Path) -> None:
    up = tmp_path / "up"
    program = f"import time; waste = b'x' * 300_000_000; open({str(up)!r}, 'w'); time.sleep(60)"
    title = "ray::MapBatches(read_rows)"  # stands for one: only the command line is looked at
    shell = ["bash", "-c", f"{sys.executable} -c \"$0\" '{title}'; true", program]
    with subprocess.Popen(shell, start_new_session=True) as process, WorkerPeaks() as peaks:
        until = time.monotonic() + 30
        while not up.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        peaks.look()
        os.killpg(process.pid, signal.SIGKILL)
    assert 300_000_000 <= peaks.bytes["read"] < 400_000_000
    assert "write" not in peaks.bytes


def test_bench_pipeline__a_single_chunk_is_refused(local_ray: None) -> None:
    ran = command("bench", "pipeline", "--images", 4, "--batch-size", 8, "--model-ms", 1)
    assert ran.status == 2
    assert "4 images are a single chunk: give more" in ran.err
