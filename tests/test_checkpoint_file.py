"""dinoidd's own checkpoint: what was written is what is loaded, and damage is told."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import SMALL, assert_same, drawn_model, publish, small_table

from dinoidd.checkpoint import digest
from dinoidd.checkpoint.file import load_checkpoint, read_local_header, save_checkpoint
from dinoidd.checkpoint.load import load_published
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.errors import CheckpointError

SIX = json.dumps(small_table(6).stored())
PERIODS = "backbone.rope_embed.periods"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """backbone.pth and head.pth of the small model."""
    (tmp_path / "published").mkdir()
    return publish(drawn_model(), tmp_path / "published")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The small model in dinoidd's own format."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(drawn_model(), small_table(), path)
    return path


def test_checkpoint__round_trip(saved: Path) -> None:
    model, info = load_checkpoint(saved)
    assert_same(model, drawn_model().state_dict())
    assert info.config == SMALL
    assert info.table == small_table()
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_checkpoint__round_trip_through_bfloat16(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = load_published(SMALL, *files, dtype=torch.bfloat16, new_classifier=False)
    save_checkpoint(model, small_table(), tmp_path / "half.safetensors")
    loaded, _ = load_checkpoint(tmp_path / "half.safetensors")
    assert_same(loaded, model.state_dict())
    assert loaded.state_dict()[PERIODS].dtype == torch.float32
    wide = load_checkpoint(tmp_path / "half.safetensors", torch.float32)[0].state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(wide[name], tensor.float() if tensor.is_floating_point() else tensor)


def test_checkpoint__load_as_bfloat16(saved: Path) -> None:
    state = load_checkpoint(saved, torch.bfloat16)[0].state_dict()
    assert state[PERIODS].dtype == torch.float32
    expected = drawn_model().state_dict()["adapter.up.weight"].to(torch.bfloat16)
    assert torch.equal(state["adapter.up.weight"], expected)


def test_checkpoint__digest_follows_the_weights(tmp_path: Path) -> None:
    model = drawn_model()
    digests = {save_checkpoint(model, small_table(), tmp_path / "a.safetensors").weights_sha256}
    again = save_checkpoint(drawn_model(), small_table(), tmp_path / "b.safetensors")
    assert digests == {again.weights_sha256}
    model.adapter.level_embed.data[2, 3] += 1e-6
    other = save_checkpoint(model, small_table(), tmp_path / "c.safetensors")
    assert other.weights_sha256 not in digests


def test_checkpoint__class_table_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the model has 5 classes, the class table 'small' 4"):
        save_checkpoint(drawn_model(), small_table(4), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/model.safetensors", "folder.safetensors"])
def test_checkpoint__cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(drawn_model(), small_table(), tmp_path / name)


@pytest.mark.parametrize("part", [0, 0.00001, 0.001, 0.5, 0.9999])
def test_checkpoint__truncated(saved: Path, part: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(CheckpointError, match=r"not a safetensors file|is cut short"):
        load_checkpoint(saved)


def test_checkpoint__surplus_bytes(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="is cut short or has surplus bytes"):
        load_checkpoint(saved)


def rewritten(path: Path, edit) -> Path:
    """The checkpoint after `edit(tensors, metadata)`."""
    tensors, metadata = load_file(path), read_local_header(path).metadata
    edit(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda t, m: m.pop("format"), "is not a dinoidd checkpoint .format None"),
        (lambda t, m: m.pop("config"), "has a broken header: 'config'"),
        (lambda t, m: m.update(config="{"), "has a broken header"),
        (lambda t, m: m.update(config='{"backbone": {}}'), "has a broken header"),
        (lambda t, m: m.update(classes="[]"), "has a broken header: class table"),
        (lambda t, m: m.update(classes=SIX), "the model has 5 classes, the class table 'small' 6"),
        (lambda t, m: t["adapter.level_embed"].add_(1), "is damaged: its tensors are not those"),
        (lambda t, m: t.pop("adapter.level_embed"), "1 tensors are missing: adapter.level_embed"),
        (lambda t, m: t.update(more=torch.ones(1)), "1 tensors are unknown: more"),
        (
            lambda t, m: t.update({"adapter.level_embed": torch.ones(3, 5)}),
            "1 tensors are unknown: adapter.level_embed",
        ),
    ],
)
def test_checkpoint__header_that_contradicts_itself(saved: Path, edit, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(rewritten(saved, edit))


def test_checkpoint__large_file_is_read_once_a_machine(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOIDD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "_NOTED_BYTES", saved.stat().st_size)
    passes: list[Path] = []

    def counted(path: Path) -> TensorFile:
        passes.append(path)
        return TensorFile(path)

    monkeypatch.setattr(digest, "TensorFile", counted)
    for _ in range(3):
        load_checkpoint(saved)
    assert passes == [saved]
    rewritten(saved, lambda t, m: t["adapter.level_embed"].add_(1))
    for _ in range(2):  # what failed is not noted
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(saved)
    assert passes == [saved] * 3
    monkeypatch.setenv("DINOIDD_CACHE", str(saved / "no folder"))
    save_checkpoint(drawn_model(), small_table(), saved)
    assert_same(load_checkpoint(saved)[0], drawn_model().state_dict())


def test_checkpoint__no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_checkpoint(tmp_path / "nothing.safetensors")
