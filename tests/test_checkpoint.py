"""Published weights: every tensor arrives, and what does not fit is refused by name."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_models import SMALL, assert_same, drawn_model, publish, published_states

from dinoidd.checkpoint.load import load_published
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.errors import CheckpointError

CLASSES = "segmentation_model.1.predictor.class_embed.weight"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """backbone.pth and head.pth of the small model."""
    return publish(drawn_model(), tmp_path)


def refused(*arguments, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_published(*arguments, **options)
    return str(caught.value)


def change(path: Path, edit) -> None:
    """Rewrite a .pth file after `edit(state)`."""
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


def test_load_published__every_tensor(files: tuple[Path, Path]) -> None:
    model = load_published(SMALL, *files, new_classifier=False)
    assert_same(model, drawn_model().state_dict())
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(t.is_meta for t in model.state_dict().values())


def test_load_published__bfloat16_is_the_cast(files: tuple[Path, Path]) -> None:
    state = load_published(SMALL, *files, dtype=torch.bfloat16, new_classifier=False).state_dict()
    for name, tensor in drawn_model().state_dict().items():
        kept = name.endswith("periods") or not tensor.is_floating_point()
        expected = tensor if kept else tensor.to(torch.bfloat16)
        assert state[name].dtype == expected.dtype, name
        assert torch.equal(state[name], expected), name


def test_load_published__safetensors_head(files: tuple[Path, Path], tmp_path: Path) -> None:
    backbone, head = published_states(drawn_model())
    paths = tmp_path / "b.safetensors", tmp_path / "h.safetensors"
    for state, path in zip((backbone, head), paths, strict=True):
        save_file(state, path)
    model = load_published(SMALL, *paths, new_classifier=False)
    assert_same(model, drawn_model().state_dict())


def test_load_published__new_classifier(files: tuple[Path, Path]) -> None:
    config = replace(SMALL, classes=7)
    first, second = (load_published(config, *files, seed=1).state_dict() for _ in range(2))
    other = load_published(config, *files, seed=2).state_dict()
    original = drawn_model().state_dict()
    rows = "query_decoder.classifier.weight"
    assert first[rows].shape == (7, SMALL.decoder.width)
    assert torch.equal(first[rows], second[rows])
    assert not torch.equal(first[rows], other[rows])
    for name, tensor in original.items():
        if not name.startswith("query_decoder.classifier."):
            assert torch.equal(first[name], tensor), name


def test_load_published__new_classifier_leaves_the_random_state(files: tuple[Path, Path]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_published(SMALL, *files, seed=1)
    assert torch.rand(1) == expected


def test_load_published__no_object_is_the_last_row(files: tuple[Path, Path]) -> None:
    state = load_published(SMALL, *files, new_classifier=False).state_dict()
    stored = torch.load(files[1], weights_only=True)[CLASSES]
    assert torch.equal(state["query_decoder.no_object.weight"], stored[-1:])
    assert torch.equal(state["query_decoder.classifier.weight"], stored[:-1])


def test_load_published__kept_classifier_of_other_classes(files: tuple[Path, Path]) -> None:
    message = refused(replace(SMALL, classes=26), *files, new_classifier=False)
    assert "query_decoder.classifier.weight is [5, 32], the model needs [26, 32]" in message
    assert "the class table does not have the checkpoint's number of classes" in message


def test_load_published__missing_keys_by_name(files: tuple[Path, Path]) -> None:
    change(files[0], lambda s: [s.pop(f"blocks.{i}.norm1.weight") for i in (1, 3)])
    message = refused(SMALL, *files)
    names = "backbone.blocks.1.norm1.weight, backbone.blocks.3.norm1.weight"
    assert f"2 tensors are missing: {names}" in message
    assert str(files[0]) in message
    assert "--preset" in message


def test_load_published__surplus_keys_by_name(files: tuple[Path, Path]) -> None:
    change(files[1], lambda s: s.update({"segmentation_model.2.extra": torch.ones(1)}))
    message = refused(SMALL, *files)
    assert "1 tensors are unknown: segmentation_model.2.extra" in message
    assert str(files[1]) in message


def test_load_published__many_keys_are_counted(files: tuple[Path, Path]) -> None:
    change(files[0], lambda s: [s.pop(name) for name in list(s)[:9]])
    assert "9 tensors are missing: " in refused(SMALL, *files)
    assert ", and 4 more" in refused(SMALL, *files)


def test_load_published__misshapen_keys_by_name(files: tuple[Path, Path]) -> None:
    change(files[1], lambda s: s.update({"segmentation_model.0.level_embed": torch.ones(3, 31)}))
    message = refused(SMALL, *files)
    assert "adapter.level_embed is [3, 31], the model needs [3, 32]" in message


def test_load_published__files_swapped(files: tuple[Path, Path]) -> None:
    message = refused(SMALL, files[1], files[0])
    assert "tensors are missing" in message
    assert "pass the backbone and the head to their own options" in message


def test_load_published__another_preset(files: tuple[Path, Path]) -> None:
    wider = replace(SMALL, decoder=replace(SMALL.decoder, width=64))
    assert "wrong --preset or decoder size" in refused(wider, *files)


class Code:
    """Pickles as a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_load_published__pickled_code_is_not_run(files: tuple[Path, Path], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    state = torch.load(files[0], weights_only=True)
    torch.save(state | {"cls_token": Code(mark)}, files[0])
    message = refused(SMALL, *files)
    assert "pickled code is never run" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(2)], "holds no table of tensors, but list"),
        ({"model": {"cls_token": torch.ones(2)}}, "entry 'model' is dict"),
        ({"epoch": 3}, "entry 'epoch' is int"),
        ({3: torch.ones(2)}, "entry 3 is Tensor"),
    ],
)
def test_load_published__not_a_flat_table(
    files: tuple[Path, Path], content: object, told: str
) -> None:
    torch.save(content, files[0])
    assert told in refused(SMALL, *files)


@pytest.mark.parametrize("part", [0, 0.001, 0.01, 0.5, 0.9, 0.999])
def test_tensor_file__truncated_pth(files: tuple[Path, Path], part: float) -> None:
    data = files[0].read_bytes()
    files[0].write_bytes(data[: int(len(data) * part)])
    assert "is not a PyTorch file of tensors" in refused(SMALL, *files)


@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
def test_tensor_file__truncated_safetensors(
    files: tuple[Path, Path], tmp_path: Path, part: float
) -> None:
    head = tmp_path / "head.safetensors"
    save_file(torch.load(files[1], weights_only=True), head)
    data = head.read_bytes()
    head.write_bytes(data[: int(len(data) * part)])
    assert "is not a safetensors file" in refused(SMALL, files[0], head)


@pytest.mark.parametrize("name", ["nothing.pth", "nothing.safetensors", ""])
def test_tensor_file__not_a_file(files: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    message = refused(SMALL, files[0], tmp_path / name)
    assert message == f"no such checkpoint file: {tmp_path / name}"


def test_tensor_file__text(files: tuple[Path, Path]) -> None:
    files[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert "is not a PyTorch file of tensors" in refused(SMALL, *files)


def test_tensor_file__random_damage_raises_checkpoint_errors_alone(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    data = files[0].read_bytes()
    outcomes = set()
    for seed in range(120):
        draw = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 3, 10])):
            damaged[draw.choice([draw.randrange(8000), -1 - draw.randrange(3000)])] ^= 1 << 4
        path = tmp_path / "damaged.pth"
        path.write_bytes(damaged)
        try:
            outcomes.add(len(TensorFile(path).names))
        except CheckpointError:
            outcomes.add(-1)
    assert -1 in outcomes


def test_tensor_file__reopened_within_its_budget(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinoidd.checkpoint.tensor_file._MIN_MAPPED_BYTES", 1)
    file, expected = TensorFile(files[0]), torch.load(files[0], weights_only=True)
    for name in expected:
        assert torch.equal(file.copy(name), expected[name])
