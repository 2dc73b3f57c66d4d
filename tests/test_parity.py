"""The network gives the reference implementation's numbers, and `parity` notices when it does not.

More folders of the same kind are compared as well where DINOIDD_REFERENCES names their parent.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dinoidd.cli import main
from dinoidd.errors import CheckpointError
from dinoidd.inference.parity import measure_parity, read_reference_config

REFERENCE = Path(__file__).parent / "fixtures" / "dinov3_reference" / "tiny-swiglu64"
MORE = sorted(Path(os.environ.get("DINOIDD_REFERENCES", "")).glob("*/expected.safetensors"))
FOLDERS = [REFERENCE, *(path.parent for path in MORE)]
HEAD = "segmentation_model.1."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the reference that may be damaged."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "reference"))


def perturb(path: Path, name: str) -> None:
    """Move the first number of one tensor of a file."""
    state = torch.load(path, weights_only=True)
    state[name].view(-1)[0] += 0.5
    torch.save(state, path)


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.name)
def test_parity__every_stage_is_the_reference(path: Path) -> None:
    parity = measure_parity(path)
    assert parity.passes(1e-4), parity
    assert parity.equal_pixels == 1
    stages = [s.stage for s in parity.stages]
    assert len(stages) >= 20
    assert {"backbone.layer0.patch", "adapter.2", "pixel_decoder.multi_scale.2"} <= set(stages)
    assert stages[0] == "backbone.layer0.patch"
    assert "predictor.pred_masks" in stages[-2:]


@pytest.mark.parametrize(
    ("file", "name", "stage"),
    [
        ("backbone.pth", "blocks.0.attn.proj.weight", "backbone.layer0.patch"),
        ("backbone.pth", "blocks.2.mlp.w2.weight", "backbone.layer2.patch"),
        ("m2f_head.pth", "segmentation_model.0.norm3.weight", "adapter.3"),
        ("m2f_head.pth", HEAD + "pixel_decoder.mask_feature.bias", "pixel_decoder.mask_features"),
        ("m2f_head.pth", HEAD + "predictor.class_embed.weight", "predictor.aux0.pred_logits"),
        (
            "m2f_head.pth",
            HEAD + "predictor.transformer_ffn_layers.1.linear1.weight",
            "predictor.aux2.pred_logits",
        ),
    ],
)
def test_parity__one_wrong_number_shows_at_its_stage(
    folder: Path, file: str, name: str, stage: str
) -> None:
    perturb(folder / file, name)
    parity = measure_parity(folder)
    outside = [s.stage for s in parity.stages if not s.within(1e-4)]
    assert outside[0] == stage
    assert not parity.passes(1e-4)


def test_parity_command__exit_status_and_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parity", str(folder)]) == 0
    within = capsys.readouterr().out.splitlines()
    assert within[-1] == "within tolerance 0.0001"
    assert any(line.split() == ["equal", "argmax", "pixels", "100.0000%"] for line in within)
    assert not any("outside" in line for line in within)
    assert main(["parity", str(folder), "--tolerance", "1e-9"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "OUTSIDE tolerance 1e-09"
    perturb(folder / "m2f_head.pth", "segmentation_model.0.norm3.weight")
    assert main(["parity", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.endswith("outside")).startswith("adapter.3 ")


def test_parity_command__json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", str(REFERENCE), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is True
    assert result["equal_pixels"] == 1
    assert max(result["stages"].values()) < 1e-4


def test_parity__not_a_number_is_outside(folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    expected["adapter.2"][0, 0, 0, 0] = float("nan")
    save_file(expected, folder / "expected.safetensors")
    assert not measure_parity(folder).passes(1e9)


def test_parity__stage_of_another_shape_or_name_is_outside(folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    expected["adapter.2"] = expected["adapter.2"][:, :5].clone()
    expected["adapter.9"] = expected["adapter.3"].clone()
    save_file(expected, folder / "expected.safetensors")
    outside = [s.stage for s in measure_parity(folder).stages if not s.within(1e9)]
    assert outside == ["adapter.2", "adapter.9"]


@pytest.mark.parametrize(
    "file", ["config.json", "backbone.pth", "m2f_head.pth", "expected.safetensors"]
)
def test_parity_command__missing_file(
    folder: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / file).unlink()
    assert main(["parity", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dinoidd parity: ")
    assert file in line


def test_parity__expected_without_image(folder: Path) -> None:
    save_file({"adapter.1": torch.zeros(3)}, folder / "expected.safetensors")
    with pytest.raises(CheckpointError, match="lacks the tensors image, semantic_argmax"):
        measure_parity(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"backbone": 1}', "{"])
def test_reference_config__broken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read as a reference's sizes"):
        read_reference_config(path)
