"""Predictions and labels from everywhere: a run's Parquet, a bucket, a model, a Ray cluster."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import S3
from evaluation_files import SmallSet, class_of, make_set, run, save
from PIL import Image
from small_models import SMALL, drawn_model, small_table
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.checkpoint.file import save_checkpoint
from dinoidd.classes import ClassTable, RawValues
from dinoidd.cli import main
from dinoidd.evaluation.model_predictions import ModelPredictions, _predictor
from dinoidd.evaluation.opening import open_model
from dinoidd.inference.predictor import Predictor
from dinoidd.inference.source import ModelSource
from dinoidd.storage import StorageOptions


@dataclass(frozen=True)
class ToyRun:
    """A run on a flat folder, with labels that are its masks shifted by two rows."""

    run: SyntheticOutput
    truth: Path
    classes: Path

    @property
    def args(self) -> tuple[object, ...]:
        where = "--ground-truth", self.truth, "--predictions", self.run.out
        return *where, "--classes", self.classes

    def label(self, image_id: int) -> np.ndarray:
        label = np.roll(self.run.mask(image_id), 2, axis=0)
        label[0, 0] = 255
        return label


@pytest.fixture
def toy(tmp_path: Path) -> ToyRun:
    toy = ToyRun(SyntheticOutput(tmp_path), tmp_path / "gt", tmp_path / "toy.json")
    toy.classes.write_text(json.dumps(TABLE.to_dict()))
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
    result = run(*toy.args, rc=1, to=tmp_path)
    assert result["confusion"]["matrix"] == expected_matrix(toy)
    assert result["confusion"]["names"] == [*TABLE.names, "void"]
    assert result["frames"]["without_prediction"] == [
        "0003 (error row: there is no such file)",
        "0070 (error row: the file ends early)",
    ]
    assert result["problems"] == []


def test_evaluate__output_with_a_damaged_mask(toy: ToyRun, tmp_path: Path) -> None:
    toy.run.edit(5, lambda row: row["mask"].update(bytes=row["mask"]["bytes"][:-20]))
    result = run(*toy.args, rc=1, to=tmp_path)
    (problem,) = result["problems"]
    assert problem["file"].endswith(
        "/images/part-000000000000-000000000064.parquet row group 0 row 5"
    )
    assert problem["what"].startswith("truncated: cannot be read as an image: the end")
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
    args = ["--ground-truth", f"s3://{bucket}/labels", "--predictions", uri]
    args += ["--classes", str(toy.classes), "--report", to]
    assert main(["evaluate", *args, "--endpoint-url", s3.endpoint_url]) == 1
    body = client.get_object(Bucket=bucket, Key="reports/one/evaluation.json")["Body"].read()
    assert json.loads(body)["confusion"]["matrix"] == expected_matrix(toy)
    again = [*args[:-2], "--against", f"{to}/evaluation.json", "--json", str(tmp_path / "b.json")]
    assert main(["evaluate", *again, "--endpoint-url", s3.endpoint_url]) == 1
    comparison = json.loads((tmp_path / "b.json").read_text())["comparison"]
    assert {entry["verdict"] for entry in comparison["classes"]} == {"the same", "absent"}


def test_evaluate__ray_counts_the_same(toy: ToyRun, tmp_path: Path) -> None:
    here = run(*toy.args, rc=1, to=tmp_path)
    there = run(*toy.args, "--ray", rc=1, to=tmp_path)
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
    (tmp_path / "five.json").write_text(json.dumps(table.to_dict()))
    where = ("--data", tmp_path, "--checkpoint", file, "--classes", tmp_path / "five.json")
    result = run(*where, "--device", "cpu", to=tmp_path)
    assert result["confusion"]["matrix"] == expected.tolist()
    assert result["settings"]["classes"] == "five"
    images = tmp_path / "leftImg8bit" / "val"
    assert result["predictions"] == f"{file} (float32) on {images}"


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


def test_evaluate__a_run_whose_table_tells_no_raw_values(toy: ToyRun, capsys) -> None:
    where = ["--ground-truth", str(toy.truth), "--predictions", str(toy.run.out)]
    assert main(["evaluate", *where]) == 2
    assert (
        f"the class table 'toy' that {toy.run.out} was made with does not say what the raw values of "
        "label images mean: give its file with --classes FILE.json"
    ) in capsys.readouterr().err


def test_evaluate__a_run_keeps_the_raw_values_of_its_table(tmp_path: Path) -> None:
    values = {30: 0, 31: 1, 32: 2, 33: 3, 0: 255}
    own = ClassTable(name="toy", classes=TABLE.classes, raw=RawValues(values=values))
    out = SyntheticOutput(tmp_path, images=2, errors={})
    out.write_part(0, [out.row(0), out.row(1)], own)
    for image_id in range(2):
        save(tmp_path / "gt" / f"{image_id:04d}.png", out.mask(image_id) + np.uint8(30))
    where = ("--ground-truth", tmp_path / "gt", "--predictions", out.out)
    result = run(*where, to=tmp_path)
    assert result["levels"]["toy"]["mean_iou"] == 1.0
    assert out.width * out.height * 2 == np.array(result["confusion"]["matrix"]).sum()


def test_evaluate__a_run_over_several_splits(tmp_path: Path) -> None:
    out = SyntheticOutput(tmp_path, images=4, errors={})

    def uri_of(image_id: int) -> str:
        split = "train" if image_id < 2 else "val"
        return f"s3://b/leftImg8bit/{split}/0/{image_id % 2}_leftImg8bit.png"

    for image_id in range(4):
        out.edit(image_id, lambda row, i=image_id: row.update(uri=uri_of(i)))
    for image_id in (2, 3):
        folder = tmp_path / "gtFine" / "val" / "0"
        save(folder / f"{image_id % 2}_gtFine_labellevel3Ids.png", out.mask(image_id))
    (tmp_path / "toy.json").write_text(json.dumps(TABLE.to_dict()))
    where = ("--data", tmp_path, "--predictions", out.out, "--classes", tmp_path / "toy.json")
    result = run(*where, to=tmp_path)
    assert result["levels"]["toy"]["mean_iou"] == 1.0
    assert result["frames"]["of_other_splits"] == {"train": 2}


def model_set(root: Path, classes: int = 5) -> list[str]:
    """Two frames of noise, and a checkpoint; the arguments to evaluate it."""
    model = drawn_model()
    table = small_table(classes)
    save_checkpoint(model, table, root / "model.safetensors")
    (root / "small.json").write_text(json.dumps(table.to_dict()))
    rng = np.random.default_rng(0)
    for i in range(2):
        image = rng.integers(0, 256, (64, 64, 3), np.uint8)
        save(root / "leftImg8bit" / "val" / "7" / f"{i}_leftImg8bit.png", image)
        save(root / "gtFine" / "val" / "7" / f"{i}_gtFine_labellevel3Ids.png", image[..., 0] % 5)
    args = ["--data", str(root), "--checkpoint", str(root / "model.safetensors")]
    return [*args, "--classes", str(root / "small.json")]


def test_evaluate__a_checkpoint_runs_in_the_dtype_of_segment(tmp_path: Path, monkeypatch) -> None:
    args = model_set(tmp_path)
    loaded: list[str] = []
    load = ModelSource.load
    monkeypatch.setattr(
        ModelSource, "load", lambda self: (loaded.append(self.dtype), load(self))[1]
    )
    run(*args, "--device", "cpu", to=tmp_path)
    run(*args, "--device", "cpu", "--dtype", "bfloat16", to=tmp_path)
    assert loaded == ["float32", "bfloat16"]
    options = StorageOptions()
    for dtype, expected in (("auto", "bfloat16"), ("float32", "float32")):
        model, _ = open_model(
            args[3], str(tmp_path), small_table(), options, device="cuda", dtype=dtype
        )
        assert isinstance(model, ModelPredictions)
        assert model.source.dtype == expected


def test_evaluate__out_of_memory_is_a_sentence(tmp_path: Path, monkeypatch, capsys) -> None:
    args = model_set(tmp_path)

    def short(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More words.")

    monkeypatch.setattr(Predictor, "predict", short)
    assert main(["evaluate", *args, "--device", "cpu", "--seed", "1"]) == 2
    assert (
        "out_of_memory: one image does not fit the GPU's memory (CUDA out of memory): try --device cpu"
    ) in capsys.readouterr().err
    monkeypatch.setattr(Predictor, "__init__", short)
    _predictor.cache_clear()
    assert main(["evaluate", *args, "--device", "cpu"]) == 2
    assert capsys.readouterr().err.endswith(
        "the model does not fit the GPU's memory (CUDA out of memory): free it, or use --dtype "
        "bfloat16 or --device cpu\n"
    )
