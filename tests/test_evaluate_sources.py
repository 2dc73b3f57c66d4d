"""Predictions and labels from everywhere: a run's Parquet, a bucket, a model, a Ray cluster."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import S3
from evaluation_files import SmallSet, class_of, make_set, run, save
from PIL import Image
from small_models import SMALL, drawn_model
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.checkpoint.file import save_checkpoint
from dinoidd.classes import ClassTable
from dinoidd.cli import main
from dinoidd.inference.predictor import Predictor


@dataclass(frozen=True)
class ToyRun:
    """A run on a flat folder, with labels that are its masks shifted by two rows."""

    run: SyntheticOutput
    truth: Path

    def label(self, image_id: int) -> np.ndarray:
        label = np.roll(self.run.mask(image_id), 2, axis=0)
        label[0, 0] = 255
        return label


@pytest.fixture
def toy(tmp_path: Path) -> ToyRun:
    toy = ToyRun(SyntheticOutput(tmp_path), tmp_path / "gt")
    for image_id in range(100):
        save(toy.truth / f"{image_id:04d}.png", toy.label(image_id))
    return toy


def expected_matrix(toy: ToyRun) -> list[list[int]]:
    matrix = np.zeros((5, 5), int)
    for image_id in set(range(100)) - set(toy.run.errors):
        truth, drawn = toy.label(image_id), toy.run.mask(image_id)
        np.add.at(matrix, (np.minimum(truth, 4), np.minimum(drawn, 4)), 1)
    return matrix.tolist()


def test_evaluate__output_of_a_run(toy: ToyRun, tmp_path: Path) -> None:
    result = run("--ground-truth", toy.truth, "--predictions", toy.run.out, rc=1, to=tmp_path)
    assert result["confusion"]["matrix"] == expected_matrix(toy)
    assert result["confusion"]["names"] == [*TABLE.names, "void"]  # the run's own table
    assert result["frames"]["without_prediction"] == [
        "0003 (error row: there is no such file)",
        "0070 (error row: the file ends early)",
    ]
    assert result["problems"] == []


def test_evaluate__output_with_a_damaged_mask(toy: ToyRun, tmp_path: Path) -> None:
    toy.run.edit(5, lambda row: row["mask"].update(bytes=row["mask"]["bytes"][:-20]))
    result = run("--ground-truth", toy.truth, "--predictions", toy.run.out, rc=1, to=tmp_path)
    (problem,) = result["problems"]
    assert problem["file"].endswith(
        "/images/part-000000000000-000000000064.parquet row group 0 row 5"
    )
    assert problem["what"].startswith("truncated: a damaged PNG of ")
    assert result["frames"]["evaluated"] == 97


def test_evaluate__output_with_other_classes(toy: ToyRun, capsys) -> None:
    where = ["--ground-truth", str(toy.truth), "--predictions", str(toy.run.out)]
    assert main(["evaluate", *where, "--classes", "camvid"]) == 2
    assert "('toy') are not those of --classes 'camvid': 4 classes, not 11" in (
        capsys.readouterr().err
    )


def test_evaluate__bucket_in_and_bucket_out(toy: ToyRun, s3: S3, tmp_path: Path) -> None:
    bucket, client = s3.new_bucket(), s3.client()
    uri = toy.run.upload(client, bucket, "runs/one")
    for path in toy.truth.iterdir():
        client.upload_file(str(path), bucket, f"labels/{path.name}")
    to = f"s3://{bucket}/reports/one"
    args = ["--ground-truth", f"s3://{bucket}/labels", "--predictions", uri, "--report", to]
    assert main(["evaluate", *args, "--endpoint-url", s3.endpoint_url]) == 1
    body = client.get_object(Bucket=bucket, Key="reports/one/evaluation.json")["Body"].read()
    assert json.loads(body)["confusion"]["matrix"] == expected_matrix(toy)
    again = [*args[:-2], "--against", f"{to}/evaluation.json", "--json", str(tmp_path / "b.json")]
    assert main(["evaluate", *again, "--endpoint-url", s3.endpoint_url]) == 1
    comparison = json.loads((tmp_path / "b.json").read_text())["comparison"]
    assert {entry["verdict"] for entry in comparison["classes"]} == {"the same", "absent"}


def test_evaluate__ray_counts_the_same(toy: ToyRun, tmp_path: Path) -> None:
    args = ("--ground-truth", toy.truth, "--predictions", toy.run.out)
    here = run(*args, rc=1, to=tmp_path)
    there = run(*args, "--ray", rc=1, to=tmp_path)
    for result in (here, there):
        result["frames"].pop("seconds")
    assert here == there


def test_evaluate__checkpoint(tmp_path: Path) -> None:
    table = ClassTable.from_dict(
        {
            "name": "five",
            "classes": [{"name": f"class {i}", "color": [i, 40 * i, 9]} for i in range(5)],
        }
    )
    model, file = drawn_model(), tmp_path / "model.safetensors"
    save_checkpoint(model, table, file)
    rng = np.random.default_rng(0)
    expected = np.zeros((6, 6), int)
    for i in range(3):
        image = rng.integers(0, 256, (64, 64, 3), np.uint8)
        save(tmp_path / "leftImg8bit" / "val" / "7" / f"{i}_leftImg8bit.png", image)
        label = rng.integers(0, 6, (64, 64)).astype(np.uint8)
        label[label == 5] = 255
        save(tmp_path / "gtFine" / "val" / "7" / f"{i}_gtFine_labellevel3Ids.png", label)
        (prediction,) = Predictor(model).predict(image[None], [(64, 64)])
        np.add.at(expected, (np.minimum(label, 5), prediction.classes), 1)
    assert SMALL.image_size == 64
    result = run("--data", tmp_path, "--checkpoint", file, "--device", "cpu", to=tmp_path)
    assert result["confusion"]["matrix"] == expected.tolist()
    assert result["settings"]["classes"] == "five"


def test_evaluate__checkpoint_without_images(tmp_path: Path, capsys) -> None:
    small: SmallSet = make_set(tmp_path)
    args = ["--ground-truth", str(small.truth), "--checkpoint", "x.safetensors"]
    assert main(["evaluate", *args]) == 2
    assert "--checkpoint needs images: give --data ROOT, or --images DIR" in (
        capsys.readouterr().err
    )


def test_evaluate__rail_track_is_absent_in_generated_scenes(tmp_path: Path, capsys) -> None:
    generate = ["--images", "4", "--image-size", "160x96", "--splits", "val=1", "--workers", "1"]
    assert main(["data", "generate", "--output", str(tmp_path / "d"), *generate]) == 0
    truth = tmp_path / "d" / "gtFine" / "val"
    result = run("--data", tmp_path / "d", "--predictions", truth, to=tmp_path)
    absent = result["levels"]["level3"]["absent"]
    assert "rail track" in absent
    assert result["levels"]["level3"]["mean_iou"] == 1.0
    assert class_of(result, "sky")["iou"] == 1.0
    assert f"{26 - len(absent)} of 26 classes present; absent: " in capsys.readouterr().out
    sizes = {Image.open(path).size for path in truth.rglob("*.png")}
    assert sizes == {(160, 96)}
