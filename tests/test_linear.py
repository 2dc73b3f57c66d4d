"""The linear head: its arithmetic, its training, its files, and that inference takes it."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import SMALL, drawn_images, drawn_model, small_table
from torch import Tensor
from training_runs import CPU, assert_same_states, config_of, drawn_batch, ready_model, run

from dinoidd.checkpoint.file import load_checkpoint, save_checkpoint
from dinoidd.checkpoint.load import cast, load_published, with_classes
from dinoidd.checkpoint.model import load_model
from dinoidd.checkpoint.published_keys import published_name
from dinoidd.cli import main
from dinoidd.config import Windows
from dinoidd.errors import CheckpointError, ConfigError
from dinoidd.inference.predictor import Predictor
from dinoidd.inference.source import ModelSource
from dinoidd.models import PRESETS, Segmenter, meta_segmenter, preset
from dinoidd.models.linear import PatchOutput
from dinoidd.models.scores import image_scores
from dinoidd.segmenter import Segmenter as ReadySegmenter
from dinoidd.training.config import LossConfig, OptimizerConfig
from dinoidd.training.linear import LinearLosses, for_head, map_loss
from dinoidd.training.memory_plan import plan_memory
from dinoidd.training.parameters import (
    constant_tensors,
    norms_learn,
    trained_names,
    trained_tensors,
)

LINEAR = replace(SMALL, name="small-linear", head="linear")
HEAD = ["linear_head.classifier.bias", "linear_head.classifier.weight"]
HEAD += ["linear_head.norm.bias", "linear_head.norm.weight"]
PIXEL = LossConfig(kind="pixel")


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return drawn_model(LINEAR).requires_grad_(False)


def test_forward__norm_and_matrix_over_the_four_layers(model: Segmenter) -> None:
    image = drawn_images(2, 64, 96)
    (output,) = model(image)
    tokens = torch.cat([patches for patches, _ in model.backbone(image)], dim=2)
    state = {n.removeprefix("linear_head."): t for n, t in model.state_dict().items()}
    spread = (state["norm.running_var"] + 1e-5).sqrt()
    normed = (tokens - state["norm.running_mean"]) / spread
    normed = normed * state["norm.weight"] + state["norm.bias"]
    logits = normed @ state["classifier.weight"].flatten(1).T + state["classifier.bias"]
    assert isinstance(output, PatchOutput)
    assert output.class_logits.shape == (2, 5, 4, 6)
    torch.testing.assert_close(output.class_logits.flatten(2).transpose(1, 2), logits)


def test_image_scores__softmax_of_resized_logits(model: Segmenter) -> None:
    (output,) = model(drawn_images())
    scores = image_scores(output, 0, (64, 96))
    expected = F.interpolate(output.class_logits, (64, 96), mode="bilinear").softmax(1)[0]
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(scores.sum(0), torch.ones(64, 96))


@pytest.mark.parametrize("name", PRESETS)
def test_preset__every_backbone_has_one(name: str) -> None:
    config = preset(f"{name}-linear")
    network = meta_segmenter(config)
    dim = config.backbone.embed_dim
    assert (config.name, config.backbone) == (f"{name}-linear", preset(name).backbone)
    assert {part for part, _ in network.named_children()} == {"backbone", "linear_head"}
    numbers = sum(p.numel() for p in network.linear_head.parameters())
    assert numbers == 2 * 4 * dim + (4 * dim + 1) * 26


@pytest.mark.parametrize("name", ["huge-linear", "tiny-linear-linear", "-linear"])
def test_preset__unknown(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown preset '{name}': there are tiny, .*-linear"):
        preset(name)


def test_config__unknown_head() -> None:
    with pytest.raises(ConfigError, match="head 'mlp': there are mask2former, linear"):
        replace(SMALL, head="mlp")


def test_fingerprint__of_mask2former_is_as_it_was_before_there_were_heads() -> None:
    described = ModelSource(preset="tiny").describe()
    config = asdict(described.config)
    del config["head"]
    before = {
        "weights": described.weights,
        "config": config,
        "classes": described.table.to_dict(),
        "dtype": "float32",
        "inference": {"image_size": 256},
    }
    expected = hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
    assert described.fingerprint(image_size=256) == expected
    linear = ModelSource(preset="tiny-linear").describe()
    renamed = replace(linear, config=replace(linear.config, name="tiny"), weights=described.weights)
    assert renamed.fingerprint(image_size=256) != expected


@pytest.mark.parametrize("windows", [None, Windows(size=64, stride=40, short_side=70, flip=True)])
def test_segmenter__segments_with_it(
    model: Segmenter, tmp_path: Path, windows: Windows | None
) -> None:
    save_checkpoint(model, small_table(), tmp_path / "model.safetensors")
    source = ModelSource(checkpoint=str(tmp_path / "model.safetensors"))
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    result = ReadySegmenter(source, device="cpu", windows=windows).predict(
        pixels, probabilities=True
    )
    assert result.classes.shape == (90, 120)
    assert result.probabilities is not None
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert (result.probabilities.argmax(0) == result.classes).mean() > 0.999
    assert 0.2 < result.confidence < 1


def test_predictor__bfloat16(model: Segmenter) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    (half,) = Predictor(cast(drawn_model(LINEAR), torch.bfloat16)).predict(pixels, [(64, 64)])
    (full,) = Predictor(model).predict(pixels, [(64, 64)])
    assert (half.classes == full.classes).mean() > 0.9


def test_map_loss__weighted_mean_over_labelled_pixels() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(3, 4, 4, generator=draw), torch.tensor([1.0, 2.0, 0.5])
    labels = torch.randint(0, 3, (64, 64), generator=draw).to(torch.uint8)
    labels[:20] = 255
    chances = F.interpolate(logits[None], (64, 64), mode="bilinear")[0].softmax(0)
    costs, total = 0.0, 0.0
    for y in range(20, 64):
        for x in range(64):
            label = int(labels[y, x])
            costs -= float(weights[label] * chances[label, y, x].log())
            total += float(weights[label])
    assert map_loss(logits, labels, weights).item() == pytest.approx(costs / total, rel=1e-4)


def test_map_loss__no_labelled_pixel_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(3, 4, 4, requires_grad=True)
    loss = map_loss(logits, torch.full((64, 64), 3, dtype=torch.uint8), torch.ones(3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_training__learns_the_head_alone() -> None:
    fast = OptimizerConfig(learning_rate=0.02)
    config = config_of(cached=False, loss=PIXEL, epochs=12, optimizer=fast)
    trained = run(config, model=ready_model(config, LINEAR))
    assert sorted(trained_names(trained.model)) == HEAD
    losses = [epoch.train_loss for epoch in trained.records.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert trained.records.epochs[-1].miou > 0.2
    untouched = drawn_model(LINEAR).state_dict()
    for name, tensor in trained.model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(tensor, untouched[name]), name
    mean = "linear_head.norm.running_mean"
    assert not torch.equal(trained.states[-1].weights[mean].cpu(), untouched[mean])


def test_training__goes_on_where_it_stopped() -> None:
    config = config_of(cached=False, loss=PIXEL, trained="all", precision="float32")
    whole = run(config, model=ready_model(config, LINEAR))
    rest = run(config, model=ready_model(config, LINEAR), state=whole.states[0])
    assert_same_states(rest.states[-1], whole.states[-1])


@pytest.mark.parametrize("trained", ["classifier", "decoder", "head", "adapter"])
def test_training__parts_above_the_backbone_are_the_head(trained: str) -> None:
    config = config_of(trained=trained, cached=False, loss=PIXEL)
    network = ready_model(config, LINEAR)
    assert sorted(trained_names(network)) == HEAD
    assert norms_learn(config, "linear")
    statistics = {n for n in trained_tensors(network) if "running" in n}
    assert statistics == {f"linear_head.norm.running_{n}" for n in ("mean", "var")}


def test_training__all_of_it_reaches_every_parameter_but_the_unused() -> None:
    config = config_of(trained="all", cached=False, loss=PIXEL, activation_checkpointing=True)
    network = ready_model(config, LINEAR)
    LinearLosses(network, config, CPU)(drawn_batch(2)).total_B.sum().backward()
    without = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    kept = constant_tensors(network, config) | trained_tensors(network)
    assert set(kept) == set(network.state_dict())


def test_for_head__settles_what_a_linear_head_has() -> None:
    asked = config_of()
    assert for_head(asked, SMALL, asked) is asked
    settled = for_head(asked, LINEAR, asked)
    assert (settled.uses_cache, settled.loss.kind) == (False, "pixel")
    assert settled.loss == replace(asked.loss, kind="pixel")
    with pytest.raises(ConfigError, match="cached=true: a linear head has no queries"):
        for_head(asked, LINEAR, config_of(cached=True))


def test_plan_memory__grows_with_what_is_trained() -> None:
    config = for_head(config_of(), LINEAR, config_of())
    small, large = (
        plan_memory(LINEAR, replace(config, trained=part)) for part in ("classifier", "all")
    )
    assert small.trained_parameters == sum(
        t.numel() for n, t in drawn_model(LINEAR).named_parameters() if n in HEAD
    )
    assert [phase.name for phase in small.phases] == ["step"]
    assert 0 < small.peak < large.peak


def test_published_names__as_the_reference_has_them(model: Segmenter) -> None:
    names = {published_name(n) for n in model.state_dict() if n.startswith("linear_head.")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert names == {
        *(f"segmentation_model.1.batchnorm_layer.{n}" for n in norm),
        *(f"segmentation_model.1.conv.{n}" for n in ("weight", "bias")),
    }


def published(model: Segmenter, folder: Path) -> tuple[Path, Path]:
    state = model.state_dict()
    paths = folder / "backbone.pth", folder / "head.pth"
    parts: list[dict[str, Tensor]] = [{}, {}]
    for name, tensor in state.items():
        parts[not name.startswith("backbone.")][published_name(name)] = tensor
    for part, path in zip(parts, paths, strict=True):
        torch.save(part, path)
    return paths


def test_load_published__both_files_and_the_backbone_alone(
    model: Segmenter, tmp_path: Path
) -> None:
    backbone, head = published(model, tmp_path)
    original = model.state_dict()
    both = load_published(LINEAR, backbone, head, new_classifier=False).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in both.items())
    other = load_published(replace(LINEAR, classes=7), backbone, head).state_dict()
    assert other["linear_head.classifier.weight"].shape == (7, 128, 1, 1)
    assert torch.equal(
        other["linear_head.norm.running_var"], original["linear_head.norm.running_var"]
    )
    alone, again = (load_published(LINEAR, backbone, None).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in alone.items())
    assert torch.equal(alone["linear_head.norm.running_var"], torch.ones(128))
    assert torch.equal(alone["backbone.cls_token"], original["backbone.cls_token"])


def test_convert__a_linear_preset_needs_the_backbone_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(preset("tiny-linear"), classes=5)
    backbone, _ = published(drawn_model(config), tmp_path)
    output = tmp_path / "base.safetensors"
    line = f"convert --preset tiny-linear --backbone {backbone} --output {output} --dtype float32"
    assert main(line.split()) == 0
    assert "the classifier is new and untrained" in capsys.readouterr().out
    loaded, info = load_checkpoint(output)
    assert (info.trained, info.config.head, info.config.classes) == (False, "linear", 26)
    assert loaded.linear_head.classifier.weight.any()
    assert main([*line.split(), "--keep-classifier"]) == 2
    assert "--keep-classifier goes with --head" in capsys.readouterr().err


def test_with_classes__another_classifier(model: Segmenter) -> None:
    other = with_classes(model, 9, seed=0)
    assert other.config.classes == 9
    assert other.linear_head.classifier.weight.shape == (9, 128, 1, 1)
    assert torch.equal(other.linear_head.norm.weight, model.linear_head.norm.weight)


def test_checkpoint__of_the_other_head_is_refused(model: Segmenter, tmp_path: Path) -> None:
    backbone, head = published(model, tmp_path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of this model"):
        load_published(SMALL, backbone, head)


def test_load_model__the_file_is_the_model(model: Segmenter, tmp_path: Path) -> None:
    save_checkpoint(model, small_table(), tmp_path / "model.safetensors")
    loaded, info = load_model(str(tmp_path / "model.safetensors"))
    assert info.config == LINEAR
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in loaded.state_dict().items())
