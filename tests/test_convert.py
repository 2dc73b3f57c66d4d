"""`dinoidd convert`: the published backbone and head become one file that segments."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import drawn_model, publish, small_table

from dinoidd.checkpoint.file import load_checkpoint
from dinoidd.cli import main
from dinoidd.models import preset
from dinoidd.models.config import SAT_MEAN, SAT_STD

TINY = replace(preset("tiny"), classes=5)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a published tiny model of 5 classes."""
    backbone, head = publish(drawn_model(TINY), tmp_path_factory.mktemp("published"))
    return ["--preset", "tiny", "--backbone", str(backbone), "--head", str(head)]


def five_classes(folder: Path) -> str:
    (folder / "five.json").write_text(json.dumps(small_table(5).to_dict()))
    return str(folder / "five.json")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused conversion prints."""
    assert main(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dinoidd convert: ")
    return line


def test_convert__new_classifier_in_bfloat16(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "model.safetensors"
    assert main(["convert", *published, "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{output}: {output.stat().st_size:,} bytes, bfloat16, 26 classes")
    assert "untrained" in lines[-1]
    model, info = load_checkpoint(output)
    assert lines[1] == f"weights sha256 {info.weights_sha256}"
    assert (info.config.classes, info.table.name) == (26, "idd")
    state, original = model.state_dict(), drawn_model(TINY).state_dict()
    assert state["query_decoder.classifier.weight"].shape == (26, 64)
    for name in ("query_decoder.no_object.weight", "adapter.up.weight"):
        assert torch.equal(state[name], original[name].bfloat16())
    assert state["backbone.rope_embed.periods"].dtype == torch.float32


def test_convert__seed_decides_the_classifier(published: list[str], tmp_path: Path) -> None:
    digests = []
    for i, seed in enumerate("112"):
        output = tmp_path / f"{i}.safetensors"
        assert main(["convert", *published, "--output", str(output), "--seed", seed]) == 0
        digests.append(load_checkpoint(output)[1].weights_sha256)
    assert digests[0] == digests[1] != digests[2]


def test_convert__keep_classifier_in_float32(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.safetensors"
    options = ["--keep-classifier", "--dtype", "float32", "--satellite"]
    classes = ["--classes", five_classes(tmp_path)]
    assert main(["convert", *published, "--output", str(output), *options, *classes]) == 0
    assert "untrained" not in capsys.readouterr().out
    model, info = load_checkpoint(output)
    expected = drawn_model(TINY).state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in model.state_dict().items())
    assert (info.config.mean, info.config.std) == (SAT_MEAN, SAT_STD)


def test_convert__keep_classifier_of_other_classes(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.safetensors"
    line = told(capsys, *published, "--output", str(output), "--keep-classifier")
    assert "query_decoder.classifier.bias is [5], the model needs [26]" in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--output", "model.pth"], "has to end in .safetensors"),
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--preset", "small"], "tensors are missing: backbone.blocks.4."),
        (["--classes", "none"], "unknown class table 'none'"),
        (["--backbone", "nothing.pth"], "no such checkpoint file: nothing.pth"),
        (["--head", "memory://nothing/head.pth"], "no such checkpoint: memory://nothing/head.pth"),
        (["--decoder-width", "96"], "wrong --preset or decoder size"),
    ],
)
def test_convert__refused_in_one_line(
    published: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    output = ["--output", str(tmp_path / "model.safetensors")]
    line = told(capsys, *published, *output, *change)
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_convert__unwritable_output_is_told_before_loading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / "model.safetensors")
    line = told(capsys, "--backbone", "nothing.pth", "--head", "nothing.pth", "--output", output)
    assert f"{output} cannot be written" in line
