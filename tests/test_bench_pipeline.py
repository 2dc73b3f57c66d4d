"""`dinoidd bench pipeline`: the arithmetic of its figures, and the whole of it on few images."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from segment_runs import command, embedded_ray

from dinoidd.bench.pipeline import PipelineSpeed, Rate, format_speed


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


def test_bench_pipeline__a_single_chunk_is_refused(local_ray: None) -> None:
    ran = command("bench", "pipeline", "--images", 4, "--batch-size", 8, "--model-ms", 1)
    assert ran.status == 2
    assert "4 images are a single chunk: give more" in ran.err
