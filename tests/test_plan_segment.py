"""`dinoidd plan segment`, and runs over a part of what is listed, on a real local Ray."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from images import write_plain
from segment_runs import Ran, command, embedded_ray, proof, rows_of, save_model, segment

from dinoidd.cli import main
from dinoidd.errors import ConfigError
from dinoidd.segment.plan import Measured, SegmentPlan
from dinoidd.sizes import parse_seconds, parse_size

MEASURED = Measured(
    images=256,
    ok=250,
    device="cuda",
    images_per_second=20.0,
    timed=240,
    startup_seconds=60.0,
    seconds={"fetch": 0.2, "decode": 0.05, "model": 0.045, "encode": 0.03, "write": 0.02},
    bytes_read=400_000.0,
    bytes_written=30_000.0,
)


def test_plan__figures() -> None:
    plan = SegmentPlan(images=7_200_000, measured=MEASURED, actors=10, gpu_price=4.0)
    assert plan.actor_hours == pytest.approx(100)
    assert plan.hours == pytest.approx(10 + 1 / 60)
    assert plan.cost == pytest.approx(4 * (100 + 10 / 60))
    assert plan.output_bytes == pytest.approx(216e9)
    assert MEASURED.cores_per_actor == pytest.approx(1 + 20 * 0.1)
    assert MEASURED.downloads_per_actor == pytest.approx(4)
    assert plan.cores == 30


def test_plan__deadline_counts_start_up() -> None:
    plan = SegmentPlan(images=7_200_000, measured=MEASURED, deadline_seconds=8 * 3600)
    found = plan.in_time()
    assert found is not None
    assert found.actors == math.ceil(100 / (8 - 1 / 60))
    assert found.hours <= 8 < replace(found, actors=found.actors - 1).hours
    assert plan.to_dict()["deadline"]["gpus"] == found.actors
    with pytest.raises(ConfigError, match="are over before the model is loaded, which took 60 s"):
        replace(plan, deadline_seconds=30.0).in_time()


def test_plan__a_cpu_tells_no_gpu_cost() -> None:
    plan = SegmentPlan(images=1000, measured=replace(MEASURED, device="cpu"), gpu_price=4.0)
    assert plan.cost is None
    assert plan.to_dict()["plan"]["gpus"] == 0


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256_000_000), ("1.5 GiB", 3 << 29), ("10b", 10)]
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size("--file-size", text) == size


@pytest.mark.parametrize("text", ["256", "0MB", "-1GB", "MB", "1 pound", ""])
def test_parse_size__nonsense(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size("--file-size", text)
    assert str(caught.value) == f"--file-size {text!r} is no size: write 256MB or 1GiB"


def test_parse_seconds() -> None:
    assert [parse_seconds("-", t) for t in ("90s", "30m", "8h", "2d")] == [90, 1800, 28800, 172800]
    with pytest.raises(ConfigError, match=r"^--deadline '8' is no time: write 90s, 30m, 8h or 2d$"):
        parse_seconds("--deadline", "8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "what is to be planned? `dinoidd plan segment --manifest OUTPUT "),
        (["segment", "--preset", "tiny"], "give either --manifest URI or --input URI"),
        (["--manifest", "m", "--input", "i", "--preset", "tiny"], "give either --manifest URI or"),
        (["--manifest", "m"], "give either --checkpoint FILE or --preset NAME"),
        (["--input", "i", "--preset", "tiny", "--sample", "0"], "--sample 0: at least 1 is needed"),
        (["--manifest", "m", "--where", "true", "--preset", "tiny"], "--where goes with --input"),
        (
            ["--input", "i", "--preset", "tiny", "--deadline", "soon"],
            "--deadline 'soon' is no time",
        ),
        (
            ["--manifest", "/nowhere", "--preset", "tiny"],
            "there is no finished manifest in /nowhere",
        ),
    ],
)
def test_plan__mistakes(arguments: list[str], told: str) -> None:
    ran = command("plan", *arguments)
    assert ran.status == 2
    assert ran.err.startswith(f"dinoidd plan: {told}")
    assert len(ran.err.splitlines()) == 1


def test_plan__an_unknown_option_shows_the_command_s_own_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", "train", "--no-such-thing", "1"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("usage: dinoidd plan train ")
    assert told.endswith("dinoidd plan train: error: unrecognized arguments: --no-such-thing 1\n")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


@pytest.fixture(scope="module")
def folder(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    write_plain(folder / "a", 20)
    write_plain(folder / "b", 20)
    save_model(folder / "model.safetensors")
    return folder


def plan(folder: Path, *arguments: object) -> Ran:
    model = ("--checkpoint", folder / "model.safetensors", "--batch-size", 2)
    return command("plan", "segment", *model, *arguments)


def part(folder: Path, output: Path, *arguments: object) -> Ran:
    return segment(
        *("--input", folder / "b", folder / "a", "--output", output),
        *("--checkpoint", folder / "model.safetensors", *arguments),
    )


def test_segment__a_sample_of_what_fits_of_several_inputs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--where", "name >= '0010.png'", "--sample", 6, "--sample-seed", 7)
    ran = part(folder, out, *options)
    assert ran.status == 0, ran.err
    uris = [row["uri"] for row in rows_of(out)]
    everything = [str(folder / name / f"{i:04d}.png") for name in "ba" for i in range(10, 20)]
    assert len(uris) == 6
    assert uris == sorted(uris, key=everything.index)
    assert proof(out).ok == 6
    record = json.loads((out / "run.json").read_text())
    told = {"where": "name >= '0010.png'", "sample": 6, "sample seed": 7}
    assert {name: record["identity"][name] for name in told} == told
    assert record["identity"]["more inputs"] == [str(folder / "a")]
    assert "finished before" in part(folder, out, *options).out
    for other, words in (
        (("--where", "true", *options[2:]), "with --where \"name >= '0010.png'\", not 'true'"),
        ((*options[:4],), "with --sample-seed 7, not 0"),
        ((), "with --sample 6, not none"),
    ):
        refused = part(folder, out, *other)
        assert refused.status == 2
        assert words in refused.err
    (session,) = record["sessions"]
    assert (session["device"], session["actors"], session["rows_before"]) == ("cpu", 1, 0)


def test_segment__a_mistaken_condition_throws_nothing_away(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert part(folder, out, "--sample", 2).status == 0
    ran = part(folder, out, "--restart", "--where", "nmae = 'x'")
    assert ran.status == 2
    assert "--where \"nmae = 'x'\" (columns: uri, size, etag, name, suffix, folder)" in ran.err
    assert proof(out).ok == 2


def test_plan__of_an_input_and_of_its_manifest(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    ran = plan(folder, *("--input", folder / "a", folder / "b", "--sample", 16), "--actors", 3,
               *("--scratch", scratch, "--deadline", "1h", "--gpu-price", 4))  # fmt: skip
    assert ran.status == 0, ran.err
    lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert lines["images"] == "40"
    assert lines["sample"] == "16 images, 16 ok, one actor on cpu"
    assert lines["speed"].partition(" images/s an actor (10 images after start-up; ")[2]
    assert " with 3 actors and " in lines["time"]
    assert lines["deadline"].startswith("1 actor and ")
    assert lines["cost"].startswith("unknown (the sample ran without a GPU")
    assert list(scratch.iterdir()) == []
    out = tmp_path / "out"
    assert part(folder, out).status == 0
    ran = plan(folder, "--manifest", out, "--sample", 8, "--run", out, "--json")
    assert ran.status == 0, ran.err
    figures = json.loads(ran.out)
    assert (figures["images"], figures["sample"]["images"]) == (40, 8)
    assert figures["output_bytes"] == pytest.approx(40 * figures["sample"]["bytes_written"])
    took = figures["took"]
    assert (took["images"], took["actors"], took["device"]) == (40, 1, "cpu")
    assert took["actor_hours"] == took["hours"] > 0
    assert took["images_per_second_per_actor"] == pytest.approx(40 / took["hours"] / 3600)


def test_plan__too_small_a_sample(folder: Path) -> None:
    ran = plan(folder, "--input", folder / "a", "--sample", 2)
    assert ran.status == 2
    assert "2 images are a single piece of work, which is all start-up: more are needed" in ran.err
