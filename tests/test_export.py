"""`dinoidd model export`: the file answers as the model does, and says how nearly."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SMALL, drawn_model, small_table, varied_model

from dinoidd.checkpoint.file import save_checkpoint
from dinoidd.cli import main
from dinoidd.inference.export import ExportCheck, compared, drawn_pixels, export_model
from dinoidd.inference.predictor import Predictor
from dinoidd.models.positions import sine_positions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a linear head, which is traced in a second."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(drawn_model(replace(SMALL, head="linear")), small_table(), path)
    return path


def test_export__program_gives_the_models_scores(tmp_path: Path) -> None:
    model, path = varied_model(), tmp_path / "model.pt2"
    pixels = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    before = Predictor(varied_model()).predict(pixels.numpy(), [(96, 96)] * 2)
    check = export_model(model, path, form="torch", image_size=96, batch_size=2)
    assert check.passes(1e-3)
    assert check.equal_pixels > 0.999
    assert check.classes > 1, "a comparison of one class shows nothing"
    scores = torch.export.load(path).module()(pixels)
    assert scores.shape == (2, SMALL.classes, 96, 96)
    after = Predictor(model).predict(pixels.numpy(), [(96, 96)] * 2)
    for i, (one, other) in enumerate(zip(before, after, strict=True)):
        assert (scores[i].argmax(0).numpy() == one.classes).mean() > 0.999
        assert np.array_equal(one.classes, other.classes), "the model is as it was"
    assert "tables" not in vars(model.backbone.rope_embed)
    assert type(sine_positions(2, 2, 32, torch.device("cpu"))) is torch.Tensor


def test_drawn_pixels__the_same_every_time_and_not_flat() -> None:
    pixels = drawn_pixels(2, 64)
    assert (pixels.shape, pixels.dtype) == ((2, 64, 64, 3), torch.uint8)
    assert torch.equal(pixels, drawn_pixels(2, 64))
    assert pixels.float().std() > 40
    assert not torch.equal(pixels[0], pixels[1])


def test_compared__largest_difference_and_equal_classes() -> None:
    expected = torch.tensor([[0.1, 0.9], [0.8, 0.2]]).view(1, 2, 1, 2)
    found = expected.clone()
    found[0, 1, 0, 0] = 0.05
    check = compared(found, expected)
    assert check.difference == pytest.approx(0.75)
    assert (check.equal_pixels, check.classes) == (0.5, 2)


def test_export_check__nan_never_passes() -> None:
    check = ExportCheck(difference=float("nan"), equal_pixels=1.0, classes=2)
    assert not check.passes(1e9)
    assert ExportCheck(difference=1e-3, equal_pixels=1.0, classes=2).passes(1e-3)


def test_command__says_how_near_it_is(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "model.pt2"
    line = f"model export --checkpoint {checkpoint} --output {output}"
    assert main(line.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{output}: {output.stat().st_size:,} bytes, torch"
    assert lines[1] == "takes pixels [1, 64, 64, 3] uint8, RGB, resized to that square"
    assert lines[2].startswith("gives scores [1, ")
    assert lines[2].endswith(", 64, 64] float32, 0 to 1")
    assert lines[3].startswith("largest difference of a score  ")
    assert lines[5] == "within tolerance 0.001"


def test_command__over_the_tolerance_fails(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.pt2"
    line = f"model export --checkpoint {checkpoint} --output {output} --tolerance -1 --json"
    assert main(line.split()) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["tolerance"], told["file"]) == (False, -1, str(output))
    assert told["difference"] >= 0


@pytest.mark.parametrize("head", ["linear", pytest.param("mask2former", marks=pytest.mark.slow)])
def test_export__onnx(head: str, tmp_path: Path) -> None:
    model = varied_model() if head == "mask2former" else drawn_model(replace(SMALL, head=head))
    path = tmp_path / "model.onnx"
    check = export_model(model, path, form="onnx", image_size=64, batch_size=2)
    assert check.passes(1e-3)
    assert check.equal_pixels > 0.95  # scores are near ties, and kernels are others
    assert check.classes > 1


def test_command__onnx_without_its_packages(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    output = tmp_path / "model.onnx"
    line = f"model export --checkpoint {checkpoint} --output {output} --format onnx"
    assert main(line.split()) == 2
    assert "pip install 'dinoidd[onnx]'" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("tiny --output x.pt2", "--output x.pt2 goes with `dinoidd model export`"),
        ("tiny --batch-size 2", "--batch-size 2 goes with `dinoidd model export`"),
        ("export --preset tiny", "--output None: a local file is needed"),
        ("export --preset tiny --output s3://b/x.pt2", "a local file is needed"),
        ("export --preset tiny --output x.onnx", "the name of this format ends in .pt2"),
        ("export --output x.pt2", "either --checkpoint FILE or --preset NAME"),
        ("export --preset tiny --output x.pt2 --batch-size 0", "--batch-size 0: at least 1"),
        ("export --preset tiny --output x.pt2 --image-size 50", "a positive multiple of 32"),
        ("export --preset tiny --output x.pt2 --queries 9", "the decoder's sizes are the model's"),
        ("export --preset huge --output x.pt2", "unknown preset 'huge'"),
    ],
)
def test_command__mistakes(
    options: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"model {options}".replace(" x.", f" {tmp_path}/x.").split()) == 2
    assert told in capsys.readouterr().err.replace(f"{tmp_path}/", "")
