"""What cannot start ends in one clear sentence, before Ray is started or a model is loaded."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from images import write_plain
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from segment_runs import forbid_work, save_model, segment
from synthetic_output import SyntheticOutput

from dinoidd.cli import main


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that must be refused, and returns the sentence."""
    forbid_work(monkeypatch)
    write_plain(tmp_path / "in", 2)
    save_model(tmp_path / "model.safetensors")
    given: dict[str, object] = {
        "--input": tmp_path / "in",
        "--output": tmp_path / "out",
        "--checkpoint": tmp_path / "model.safetensors",
    }

    def start(**changes: object) -> str:
        options = given | {f"--{k.replace('_', '-')}": v for k, v in changes.items()}
        ran = segment(*[x for pair in options.items() if pair[1] is not None for x in pair])
        assert ran.status == 2
        assert ran.out == ""
        sentences = [line for line in ran.err.splitlines() if line.startswith("dinoidd segment: ")]
        others = [line for line in ran.err.splitlines() if not line[:2].isdecimal()]
        assert sentences == others, ran.err  # besides lines of the log, which begin with the time
        assert len(sentences) == 1, ran.err
        assert not (tmp_path / "out" / "run.json").exists()
        return sentences[0]

    return start


def test_start__input_is_missing(start: Callable[..., str], tmp_path: Path) -> None:
    assert f"there is no file or folder {tmp_path}/typo" in start(input=tmp_path / "typo")


def test_start__input_is_empty(start: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.doc").write_text("x")
    assert "holds no image: there are only 1 .doc" in start(input=tmp_path / "empty")


def test_start__output_is_a_file(start: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = start(output=tmp_path / "file")
    assert f"the output {tmp_path}/file cannot be written to" in said
    assert (tmp_path / "file").read_text() == "x"


def test_start__output_is_below_a_file(start: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "a part of the path is a file" in start(output=tmp_path / "file" / "out")


def test_start__class_table_is_unknown(start: Callable[..., str]) -> None:
    said = start(checkpoint=None, preset="tiny", classes="nonsense")
    assert "unknown class table 'nonsense': built in are" in said


def test_start__preset_is_unknown(start: Callable[..., str]) -> None:
    assert "unknown preset 'huge': there are tiny" in start(checkpoint=None, preset="huge")


def test_start__image_size(start: Callable[..., str]) -> None:
    assert "--image-size 100: a positive multiple of 32" in start(image_size=100)


def test_start__all_mistakes_at_once(start: Callable[..., str]) -> None:
    said = start(image_size=100, batch_size=0, max_error_rate=7)
    assert "--image-size 100" in said
    assert "--batch-size 0: at least 1" in said
    assert "--max-error-rate 7" in said


def test_start__checkpoint_is_missing(start: Callable[..., str], tmp_path: Path) -> None:
    assert f"no such checkpoint: {tmp_path}/no.safetensors" in start(
        checkpoint=tmp_path / "no.safetensors"
    )


@pytest.mark.parametrize("cut", [4, 100, -100])
def test_start__checkpoint_is_truncated(
    start: Callable[..., str], tmp_path: Path, cut: int
) -> None:
    whole = (tmp_path / "model.safetensors").read_bytes()
    broken = tmp_path / "cut.safetensors"
    broken.write_bytes(whole[:cut])
    said = start(checkpoint=broken)
    assert str(broken) in said
    assert "Copy it again" in said if cut < 0 else "is not a safetensors file" in said


def test_start__checkpoint_is_noise(start: Callable[..., str], tmp_path: Path) -> None:
    broken = tmp_path / "noise.safetensors"
    broken.write_bytes(np.random.default_rng(0).bytes(5000))
    assert "noise.safetensors is not a safetensors file (5,000 bytes" in start(checkpoint=broken)


def test_start__checkpoint_lacks_a_tensor(start: Callable[..., str], tmp_path: Path) -> None:
    tensors = load_file(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    del tensors["query_decoder.classifier.weight"]
    tensors["surplus"] = torch.zeros(1)
    save_file(tensors, tmp_path / "lacks.safetensors", metadata=metadata)
    said = start(checkpoint=tmp_path / "lacks.safetensors")
    assert "1 tensors are missing: query_decoder.classifier.weight" in said
    assert "1 tensors are unknown: surplus" in said


def test_start__checkpoint_of_somebody_else(start: Callable[..., str], tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    assert "is not a dinoidd checkpoint" in start(checkpoint=tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("both", [True, False])
def test_start__both_or_neither_model(
    tmp_path: Path, both: bool, capsys: pytest.CaptureFixture
) -> None:
    model = ["--checkpoint", "x", "--preset", "tiny"] if both else []
    with pytest.raises(SystemExit) as caught:
        main(["segment", "--input", "in", "--output", str(tmp_path), *model])
    assert caught.value.code == 2
    assert "--checkpoint" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "ray://localhost:{port}", "h:99999", "x y"]
)
def test_start__no_cluster_there(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = address.format(port=port)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    where = ["--input", write_plain(tmp_path / "in", 1), "--output", tmp_path / "out"]
    asked = time.monotonic()
    ran = segment(*where, "--preset", "tiny", "--address", address)
    assert ran.status == 2
    assert time.monotonic() - asked < 15
    assert f"dinoidd segment: no Ray cluster answers at {address}: " in ran.err
    assert not (tmp_path / "out" / "run.json").exists()


def test_start__address_of_a_dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    where = ["--input", write_plain(tmp_path / "in", 1), "--output", tmp_path / "out"]
    ran = segment(*where, "--preset", "tiny")
    assert ran.status == 2
    assert "http://127.0.0.1:8265 is a cluster's dashboard, which takes jobs" in ran.err


def test_restart__keeps_everything_if_the_cluster_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain(tmp_path / "in", 1)
    SyntheticOutput(tmp_path / "old")
    output = tmp_path / "old" / "out"
    record = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps(record | {"run_id": "run-1", "layout": {}}))
    before = sorted(p.name for p in output.rglob("*"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    where = ["--input", tmp_path / "in", "--output", output, "--address", "127.0.0.1:1"]
    ran = segment(*where, "--preset", "tiny", "--restart")
    assert ran.status == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in ran.err
    assert sorted(p.name for p in output.rglob("*")) == before
