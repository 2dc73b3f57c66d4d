"""What training leaves: a small file that is loaded wherever a whole one is, with its base."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import SMALL, assert_same, drawn_images, drawn_model, small_table
from training_runs import CPU, config_of

from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.digest import weights_digest
from dinoidd.checkpoint.file import load_checkpoint, read_local_header, save_checkpoint
from dinoidd.checkpoint.load import cast
from dinoidd.checkpoint.model import load_base, load_model, load_trained, read_model_info
from dinoidd.checkpoint.trained import (
    Trained,
    TrainedInfo,
    load_trained_state,
    read_trained_info,
    save_trained,
)
from dinoidd.cli import main
from dinoidd.errors import CheckpointError, ConfigError
from dinoidd.inference.source import ModelSource
from dinoidd.models import Segmenter
from dinoidd.segmenter import Segmenter as Api
from dinoidd.training.prepare import prepare

SIX = json.dumps(small_table(6).stored())
CLASSIFIER = ("query_decoder.classifier.weight", "query_decoder.classifier.bias")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DINOIDD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base of 5 classes."""
    save_checkpoint(drawn_model(), small_table(), tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


def trained_on(model: Segmenter, base: Base, names: tuple[str, ...] = CLASSIFIER) -> Trained:
    """A file's content: those tensors of the model, moved a little."""
    draw = torch.Generator().manual_seed(7)
    state = model.state_dict()
    tensors = {
        n: state[n].float() + 0.1 * torch.randn(state[n].shape, generator=draw) for n in names
    }
    info = TrainedInfo(
        config=model.config,
        table=small_table(model.config.classes),
        base=base,
        training={"epochs": 20},
        epoch=3,
        step=42,
        metrics={"miou": 0.4259},
        state={"waited": 2},
    )
    moments = {f"{n}.exp_avg": torch.full_like(t, 0.5) for n, t in tensors.items()}
    steps = {f"{n}.step": torch.tensor(42.0) for n in tensors}
    return Trained(info=info, tensors=tensors, optimizer={**moments, **steps})


def train_classifier(base: Path, path: Path, classes: int = 4) -> tuple[Trained, TrainedInfo]:
    """`best.safetensors` of a training on the base, for another number of classes."""
    model, identity = load_base(
        checkpoint=str(base), preset_name=None, table=small_table(classes), seed=1
    )
    trained = trained_on(model, identity)
    return trained, save_trained(trained, path)


def test_trained__joined_with_its_base(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "best.safetensors"
    trained, info = train_classifier(base, path)
    expected = drawn_model().state_dict() | trained.tensors
    assert_same(load_trained(path), expected)  # the no-object row is the base's
    assert path.stat().st_size < 0.1 * base.stat().st_size
    model, found = load_model(str(path))
    assert (found.config, found.table) == (replace(SMALL, classes=4), small_table(4))
    assert found.weights_sha256 == info.weights_sha256
    with torch.no_grad():
        assert model(drawn_images())[0].class_logits.shape == (1, 9, 5)


def test_trained__state_of_a_run_comes_back(base: Path, tmp_path: Path) -> None:
    trained, info = train_classifier(base, tmp_path / "last.safetensors")
    path = tmp_path / "last.safetensors"
    found = load_trained_state(path, read_trained_info(read_local_header(path), str(path)))
    assert found.info == info
    assert (info.epoch, info.step, info.metrics, info.state) == (
        *(3, 42, {"miou": 0.4259}),
        {"waited": 2},
    )
    for kind in ("tensors", "optimizer"):
        ours, theirs = getattr(found, kind), getattr(trained, kind)
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_trained__whole_network_needs_no_base(base: Path, tmp_path: Path) -> None:
    model, identity = load_base(checkpoint=str(base), preset_name=None, table=small_table())
    state = model.state_dict()
    names = tuple(n for n, t in state.items() if t.is_floating_point() and "periods" not in n)
    rest = {n: t for n, t in state.items() if n not in names}
    trained = replace(trained_on(model, identity, names), constants=rest)
    info = save_trained(trained, tmp_path / "best.safetensors")
    base.unlink()
    assert info.whole
    path = tmp_path / "best.safetensors"
    assert_same(load_trained(path), trained.tensors | rest)
    again = load_trained_state(path, info)
    assert set(again.tensors) == set(names)
    assert set(again.constants) == set(rest)


def test_trained__preset_is_drawn_again(tmp_path: Path) -> None:
    table = small_table(7)
    model, identity = load_base(checkpoint=None, preset_name="tiny", table=table, seed=5)
    path = tmp_path / "best.safetensors"
    trained = trained_on(model, identity)
    save_trained(trained, path)
    assert_same(load_trained(path), model.state_dict() | trained.tensors)
    half, _ = load_model(str(path), dtype=torch.bfloat16)
    assert half.query_decoder.classifier.weight.dtype == torch.bfloat16
    other = replace(trained, info=replace(trained.info, base=replace(identity, weights="a" * 64)))
    save_trained(other, path)
    with pytest.raises(
        CheckpointError, match=r"seed 5, torch .*\), weights aaaaaaaaaaaa; torch .* dr"
    ):
        load_trained(path)


def test_trained__other_base_is_refused(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    train_classifier(base, path)
    ours = load_checkpoint(base)[1].weights_sha256[:12]
    theirs = save_checkpoint(drawn_model(seed=3), small_table(), base).weights_sha256[:12]
    told = (
        f"weights {ours}; {base} has the weights {theirs}: put that base there or name it with --ba"
    )
    for look in (read_model_info, load_model):
        with pytest.raises(CheckpointError) as raised:
            look(str(path))
        assert told in str(raised.value)


def test_trained__base_that_moved(base: Path, tmp_path: Path) -> None:
    path, moved = tmp_path / "best.safetensors", tmp_path / "elsewhere.safetensors"
    trained, info = train_classifier(base, path)
    base.rename(moved)
    with pytest.raises(CheckpointError) as raised:
        ModelSource(checkpoint=str(path)).describe()
    assert str(raised.value) == (
        f"{path} was trained on {base}, and its base cannot be read (no such checkpoint: {base}): "
        "put that base there or name it with --base FILE; where a command has no --base, make one file "
        f"of both with 'dinoidd convert {path} --base FILE --output whole.safetensors'"
    )
    source = ModelSource(checkpoint=str(path), base=str(moved))
    assert source.describe().weights == info.weights_sha256
    assert_same(source.load(), drawn_model().state_dict() | trained.tensors)
    assert Api.load(path, base=moved, device="cpu").class_table == small_table(4)


def test_trained__everything_remote(base: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/base.safetensors", base.read_bytes())
    model, identity = load_base(
        checkpoint="memory://models/base.safetensors", preset_name=None, table=small_table()
    )
    trained = trained_on(model, identity)
    save_trained(trained, tmp_path / "best.safetensors")
    memory.pipe_file("/models/best.safetensors", (tmp_path / "best.safetensors").read_bytes())
    try:
        loaded = ModelSource(checkpoint="memory://models/best.safetensors").load()
    finally:
        memory.rm("/models", recursive=True)
    assert_same(loaded, model.state_dict() | trained.tensors)


def test_trained__as_the_base_of_another(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    trained, _ = train_classifier(base, first)
    again, _ = train_classifier(first, second)
    assert_same(load_trained(second), drawn_model().state_dict() | again.tensors)
    model, _ = load_base(checkpoint=str(first), preset_name=None, table=small_table(4))
    assert torch.equal(model.state_dict()[CLASSIFIER[0]], trained.tensors[CLASSIFIER[0]])


def test_load_base__half_of_a_large_model_stays_half(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    stored = cast(drawn_model(), torch.bfloat16)
    save_checkpoint(stored, small_table(), half)
    save_checkpoint(cast(stored, torch.float32), small_table(), whole)
    models = [
        load_base(checkpoint=str(path), preset_name=None, table=small_table(4), seed=1)[0]
        for path in (whole, half)
    ]
    expected, ours = (model.state_dict() for model in models)
    for name, tensor in ours.items():
        in_block = name.startswith("backbone.blocks.") and tensor.ndim > 1
        assert tensor.dtype == (torch.bfloat16 if in_block else expected[name].dtype), name
        assert torch.equal(tensor.float(), expected[name].float()), name
    for precision in ("float32", "bfloat16"):
        config = config_of(precision=precision, trained="last_n_blocks", blocks=1)
        one, other = (prepare(deepcopy(m), config, CPU) for m in models)
        assert_same(other, one.state_dict())


def test_trained__identity_tells_trainings_and_bases_apart(base: Path, tmp_path: Path) -> None:
    trained, info = train_classifier(base, tmp_path / "a.safetensors")
    again = save_trained(trained, tmp_path / "b.safetensors")
    trained.tensors[CLASSIFIER[1]][0] += 1e-6
    other = save_trained(trained, tmp_path / "c.safetensors")
    on_other = replace(info, base=replace(info.base, weights="b" * 64))
    digests = [info.weights_sha256, again.weights_sha256, other.weights_sha256]
    assert digests[0] == digests[1]
    assert len({*digests, on_other.weights_sha256, info.base.weights}) == 4
    path = tmp_path / "a.safetensors"
    source = ModelSource(checkpoint=str(path))
    exactly = source.exactly(source.describe())
    (tmp_path / "c.safetensors").replace(path)
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        exactly.load()


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """As a header of JSON has it."""
    kept = {n: t for n, t in tensors.items() if not n.startswith("optimizer.")}
    return json.dumps(weights_digest(kept))


def rewritten(path: Path, edit) -> Path:
    tensors, metadata = load_file(path), read_local_header(path).metadata
    edit(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda t, m: m.update(classes=SIX), "the model has 4 classes, the class table 'small' 6"),
        (lambda t, m: m.pop("base"), "has a broken header: 'base'"),
        (lambda t, m: m.update(base='{"place": 1}'), "has a broken header"),
        (lambda t, m: t.update(more=torch.ones(1)), "1 tensors are unknown: more"),
        (
            lambda t, m: t.update({CLASSIFIER[1]: torch.ones(9)}),
            "1 tensors are unknown: query_decoder.classifier.bias",
        ),
        (lambda t, m: [t.pop(n) for n in CLASSIFIER], "holds no trained tensor"),
        (
            lambda t, m: (t.pop(CLASSIFIER[1]), m.update(trained_sha256=digest_of(t))),
            "and its base do not fit: .'query_decoder.classifier.b",
        ),
        (lambda t, m: m.update(whole="true"), "tensors are missing: adapter"),
    ],
)
def test_trained__header_that_contradicts_itself(base: Path, tmp_path: Path, edit, told) -> None:
    train_classifier(base, tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match=told):
        load_trained(rewritten(tmp_path / "best.safetensors", edit))


def test_trained__class_table_of_another_size(base: Path, tmp_path: Path) -> None:
    trained, info = train_classifier(base, tmp_path / "best.safetensors")
    path = tmp_path / "other.safetensors"
    with pytest.raises(CheckpointError) as raised:
        save_trained(replace(trained, info=replace(info, table=small_table(6))), path)
    assert str(raised.value) == f"{path}: the model has 4 classes, the class table 'small' 6"
    assert not path.exists()


def test_trained__damaged_values_are_told(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    _, info = train_classifier(base, path)
    rewritten(path, lambda t, m: t[CLASSIFIER[1]].add_(1))
    for look in (
        lambda: load_trained_state(path, info),
        lambda: load_trained(path),
        ModelSource(checkpoint=str(path)).load,
    ):
        with pytest.raises(CheckpointError) as raised:
            look()
        assert str(raised.value).startswith(f"{path} is damaged: its tensors are not those it was")
        assert f"its header says {info.trained_sha256[:12]}). Remove it" in str(raised.value)


def test_trained__base_of_other_weights_under_its_old_header(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    train_classifier(base, path)
    rewritten(base, lambda t, m: t["adapter.level_embed"].add_(1))
    told = f"{base} is damaged: its tensors are not those"
    for look in (
        lambda: load_trained(path),
        lambda: load_base(checkpoint=str(base), preset_name=None, table=small_table()),
    ):
        with pytest.raises(CheckpointError, match=told):
            look()


def test_trained__whole_network_with_other_constants(base: Path, tmp_path: Path) -> None:
    model, identity = load_base(checkpoint=str(base), preset_name=None, table=small_table())
    state = model.state_dict()
    names = tuple(n for n, t in state.items() if t.is_floating_point() and "periods" not in n)
    rest = {n: t for n, t in state.items() if n not in names}
    path = tmp_path / "best.safetensors"
    save_trained(replace(trained_on(model, identity, names), constants=rest), path)
    rewritten(path, lambda t, m: t["constant.backbone.rope_embed.periods"].add_(1))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_trained(path)


def test_trained__base_option_where_none_belongs(base: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds a whole network: leave --base x out"):
        ModelSource(checkpoint=str(base), base="x").describe()
    with pytest.raises(ConfigError, match="--base x goes with the --checkpoint"):
        ModelSource(preset="tiny", base="x")


def test_convert__trained_into_one_file(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, _ = train_classifier(base, tmp_path / "best.safetensors")
    whole = tmp_path / "whole.safetensors"
    assert main(["convert", str(tmp_path / "best.safetensors"), "--output", str(whole)]) == 0
    assert "float32, 4 classes (small)" in capsys.readouterr().out
    assert_same(load_checkpoint(whole)[0], drawn_model().state_dict() | trained.tensors)
    assert main(["convert", str(whole), "--head", "x", "--output", str(whole)]) == 2
    assert "give --backbone and --head, or one TRAINED file" in capsys.readouterr().err
