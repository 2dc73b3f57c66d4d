"""`dinoidd bench scale`: the arithmetic of its figures, and the whole of it on few rows."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from segment_runs import embedded_ray

from dinoidd.bench.made_up import CHUNK, ReadManifest, SleepingModel, made_up_images, made_up_rows
from dinoidd.bench.memory import peak_bytes, resident_bytes
from dinoidd.bench.scale import Finished, Scale, ScaleConfig, format_scale, rate, tenths
from dinoidd.cli.bench import add_arguments, run
from dinoidd.data.manifest import write_manifest
from dinoidd.errors import ClusterError, ConfigError
from dinoidd.segment.layout import Layout
from dinoidd.storage import Store

MB = 10**6


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


def worked(*actors: list[float]) -> list[Finished]:
    """Chunks by the times at which each actor was through, as they would come."""
    chunks = [
        Finished(at=at, actor=actor, driver_bytes=0)
        for actor, times in enumerate(actors)
        for at in times
    ]
    return sorted(chunks, key=lambda chunk: chunk.at)


def scale_of(**values: Any) -> Scale:
    known: dict[str, Any] = {
        "rows": 10_000_000,
        "index_seconds": 100.0,
        "index_peak_bytes": 150 * MB,
        "chunks": 156_250,
        "plan_seconds": 0.25,
        "first_chunk_seconds": 7.0,
        "first_chunk_bytes": 430 * MB,
        "images": 19_968,
        "long_run_actors": 8,
        "first_tenth": 400.0,
        "last_tenth": 396.0,
        "driver_bytes": {1: 430 * MB, 156: 431 * MB, 312: 432 * MB},
        "by_actors": {1: 50.0, 2: 99.0, 8: 380.0},
    }
    return Scale(**known | values)


def test_rate__is_the_sum_of_the_actors_own() -> None:
    slow, fast = [10.0, 12.0, 14.0], [3.0, 4.0, 5.0, 6.0]
    assert rate(worked(slow), 1) == CHUNK / 2
    assert rate(worked(slow, fast), 2) == CHUNK / 2 + CHUNK


def test_rate__an_actor_without_two_chunks_is_told() -> None:
    with pytest.raises(ClusterError) as caught:
        rate(worked([1.0, 2.0], [1.5]), 2)
    assert str(caught.value) == (
        "1 of 2 actors did two chunks or more of 3: the machine is too busy to tell, so close what "
        "else runs or raise --model-ms"
    )


def test_tenths__are_of_the_order_in_which_the_actors_were_through() -> None:
    times = [float(i) for i in range(50)] + [50.0 + 2 * i for i in range(50)]
    chunks = worked(times)
    chunks = [Finished(at=chunk.at, actor=0, driver_bytes=i) for i, chunk in enumerate(chunks)]
    found = tenths([*chunks[:3][::-1], *chunks[3:]], 1)
    assert (found["first_tenth"], found["last_tenth"]) == (CHUNK, CHUNK / 2)
    assert found["images"] == 100 * CHUNK
    assert list(found["driver_bytes"])[:2] == [1, 11]
    assert found["driver_bytes"][100] == 99


def test_tenths__leave_out_the_start() -> None:
    """One actor works for 40 seconds before the other begins."""
    early, late = [float(i) for i in range(100)], [40.5 + i for i in range(60)]
    found = tenths(worked(early, late), 2)
    assert found["images"] == 160 * CHUNK
    assert (found["first_tenth"], found["last_tenth"]) == (2 * CHUNK, 2 * CHUNK)
    with pytest.raises(ClusterError, match="only 1 of 2 actors came to work"):
        tenths(worked(early), 2)


def test_scale__shares_of_linear() -> None:
    assert scale_of().linear_share == {1: 1.0, 2: 0.99, 8: 0.95}
    from_two = scale_of(by_actors={2: 100.0, 4: 190.0})
    assert from_two.linear_share == {2: 1.0, 4: 0.95}


def test_format_scale__says_it_all() -> None:
    assert format_scale(scale_of()).splitlines() == [
        "index            10,000,000 rows in 1m40s, 100,000 rows/s, peak 150 MB",
        "planning         156,250 chunks in 0.2 s",
        "first chunk      7.0 s after the start, driver 430 MB",
        "   19,968 images 400.0 images/s in the first tenth, 396.0 in the last (99%), 8 actors",
        "driver memory    430 MB after the first chunk, 431 in the middle, 432 at the end",
        "  1 actors           50.0 images/s, 100.0% of linear",
        "  2 actors           99.0 images/s, 99.0% of linear",
        "  8 actors          380.0 images/s, 95.0% of linear",
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rows": 0}, "--rows 0 must be 1 or more"),
        (
            {"images": 100, "actors": (1, 2)},
            "--images 100 must be 3,840 or more for 2 actors: that is 3 chunks for each in a tenth "
            "of the run",
        ),
        ({"actors": (0,)}, "--actors [0] must be 1 or more each"),
        ({"actors": ()}, "--actors [] must be 1 or more each"),
        ({"seconds_per_image": 0.0}, "--model-ms 0 must be more than 0"),
    ],
)
def test_scale_config__refuses(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ScaleConfig(**values)
    assert str(caught.value) == sentence


def test_made_up_images__are_told_apart() -> None:
    images = list(made_up_images(300))
    assert len({image.uri for image in images}) == len({image.etag for image in images}) == 300
    assert all(len(image.etag or "") == 32 for image in images)


def test_read_manifest__a_chunk_has_its_rows(tmp_path: Any) -> None:
    folder = Store.open(str(tmp_path))
    write_manifest(folder, made_up_images(100), input_uri="made up", counts={})
    read = ReadManifest(
        manifest=folder, layout=Layout(rows=100, rows_per_chunk=64, rows_per_file=64)
    )
    table = read(1)
    assert table.column("image_id").to_pylist() == list(range(64, 100))
    assert table.column("chunk").to_pylist() == [1] * 36


def test_sleeping_model__takes_its_time() -> None:
    slept = SleepingModel(0.001)(made_up_rows(5))
    assert len(slept) == CHUNK
    assert set(slept.column("chunk").to_pylist()) == {5}
    assert len(set(slept.column("at").to_pylist())) == 1
    assert isinstance(slept, pa.Table)


def test_memory__of_this_process() -> None:
    assert 10 * MB < resident_bytes() < 1.1 * peak_bytes(), "the kernel counts them apart"


def test_run__prints_json(local_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = "scale --rows 3000 --images 1920 --actors 1 --model-ms 0.2 --json"
    assert run(parser.parse_args(options.split())) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["rows"], printed["chunks"], printed["images"]) == (3000, 47, 1920)
    assert printed["linear_share"] == {"1": 1.0}
    assert set(printed["by_actors"]) == {"1"}
    assert 0 < printed["by_actors"]["1"] < 64 / (64 * 0.0002)
    assert list(printed["driver_bytes"])[-1] == "30"
    assert printed["first_chunk_bytes"] > 10 * MB
