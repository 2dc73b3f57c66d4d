"""What learns, at which rate, and how BatchNorms behave."""

from dataclasses import replace

import pytest
import torch
from small_models import SMALL, drawn_model
from torch import nn
from training_runs import CPU, LOSS, config_of, drawn_batch, ready_model

from dinoidd.training.config import PARTS, OptimizerConfig, TrainConfig
from dinoidd.training.optimizer import make_optimizer, parameter_groups, rate_of, set_rates
from dinoidd.training.parameters import select, synchronised_norms, training_mode
from dinoidd.training.precision import network_dtype
from dinoidd.training.prepare import prepare
from dinoidd.training.step import ImageLosses

FIRST = {
    "classifier": ("query_decoder.classifier.",),
    "decoder": ("query_decoder.",),
    "head": ("query_decoder.", "pixel_decoder."),
    "adapter": ("query_decoder.", "pixel_decoder.", "adapter."),
    "last_n_blocks": (
        *("query_decoder.", "pixel_decoder.", "adapter.", "backbone.norm."),
        *("backbone.blocks.2.", "backbone.blocks.3."),  # block 4 of 5 is read by nobody
    ),
    "all": ("query_decoder.", "pixel_decoder.", "adapter.", "backbone."),
}
NEVER = ("backbone.mask_token", "backbone.blocks.4.")


def part_config(part: str, kind: str = "set", **settings: object) -> TrainConfig:
    return config_of(trained=part, blocks=2, loss=replace(LOSS, kind=kind), **settings)


@pytest.mark.parametrize("part", PARTS)
def test_select__names(part: str) -> None:
    model = drawn_model()
    names = select(model, part_config(part))
    everything = [name for name, _ in model.named_parameters()]
    expected = [n for n in everything if n.startswith(FIRST[part]) and not n.startswith(NEVER)]
    assert names == expected
    assert [n for n, p in model.named_parameters() if p.requires_grad] == expected


@pytest.mark.parametrize("kind", ["set", "pixel"])
@pytest.mark.parametrize("part", PARTS)
def test_gradients__reach_all_that_is_trained_and_nothing_else(part: str, kind: str) -> None:
    """Fails where a no_grad or an inference mode stands between the loss and a trained parameter."""
    config = part_config(part, kind)
    model = ready_model(config)
    names = set(select(model, config))
    ImageLosses(model, config, CPU)(drawn_batch(2)).total_B.sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    # keys have no bias (DINOv3), and a bias of all keys alike changes no attention
    allowed = {n for n in names if n.endswith("attention_weights.bias")}
    assert names - allowed <= reached
    assert {n for n, p in model.named_parameters() if p.grad is not None} == names


def test_gradients__reach_all_under_autocast() -> None:
    """Autocast keeps bfloat16 copies of weights; those made where no gradient is wanted may not serve
    where one is."""
    last_alone = replace(LOSS, deep_supervision=False)
    config = config_of(trained="all", loss=last_alone, precision="bfloat16")
    model = ready_model(config)
    ImageLosses(model, config, CPU)(drawn_batch(2)).total_B.sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    wanted = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in wanted - reached if not n.endswith("attention_weights.bias")} == set()


@pytest.mark.parametrize("part", ["decoder", "all"])
def test_activation_checkpointing__same_gradients(part: str) -> None:
    gradients = []
    for recomputed in (False, True):
        config = part_config(part, activation_checkpointing=recomputed)
        model = ready_model(config)
        ImageLosses(model, config, CPU)(drawn_batch(2)).total_B.sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, recomputed_ones = gradients
    assert plain.keys() == recomputed_ones.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed_ones[name], gradient, msg=name)


def test_activation_checkpointing__keeps_less() -> None:
    kept = []
    for recomputed in (False, True):
        config = part_config("all", activation_checkpointing=recomputed)
        module = ImageLosses(ready_model(config), config, CPU)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(drawn_batch(2))
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]


def test_batch_norms__learn_where_they_are_trained_alone() -> None:
    for part in PARTS:
        model = ready_model(part_config(part))
        training = {n for n, m in model.named_modules() if m.training}
        norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        assert training == (norms if part in ("adapter", "last_n_blocks", "all") else set())
        assert len(norms) == 10


def test_batch_norms__synchronised_where_they_are_trained() -> None:
    model = ready_model(part_config("adapter"))
    names = list(model.state_dict())
    synchronised_norms(model)
    assert list(model.state_dict()) == names
    assert isinstance(model.adapter.norm1, nn.SyncBatchNorm)
    assert isinstance(model.adapter.spm.stem[1], nn.SyncBatchNorm)
    assert model.adapter.norm1.weight.requires_grad
    frozen = ready_model(part_config("head"))
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in synchronised_norms(frozen).modules())


@pytest.mark.parametrize("part", ["head", "adapter"])
def test_batch_norms__statistics_move_where_they_are_trained_alone(part: str) -> None:
    config = part_config(part)
    model = ready_model(config)
    before = model.adapter.norm1.running_mean.clone()
    module = ImageLosses(model, config, CPU)
    module(drawn_batch(2))
    assert torch.equal(before, model.adapter.norm1.running_mean) == (part == "head")
    after = model.adapter.norm1.running_mean.clone()
    module.eval()
    module(drawn_batch(2), validation=True)
    assert torch.equal(after, model.adapter.norm1.running_mean)
    training_mode(model)
    assert model.adapter.norm1.training == (part == "adapter")


def test_rates__layer_decay() -> None:
    config = OptimizerConfig(backbone_rate=0.1, layer_decay=0.5, adapter_rate=3.0)
    expected = {
        "query_decoder.classifier.weight": 1.0,
        "pixel_decoder.mask_feature.weight": 1.0,
        "adapter.up.weight": 3.0,
        "backbone.norm.weight": 0.1,
        "backbone.blocks.3.attn.proj.weight": 0.1,
        "backbone.blocks.2.attn.proj.weight": 0.05,
        "backbone.blocks.0.attn.proj.weight": 0.0125,
        "backbone.patch_embed.proj.weight": 0.00625,
        "backbone.cls_token": 0.00625,
    }
    assert {name: rate_of(name, 3, config) for name in expected} == pytest.approx(expected)


def test_groups__matrices_alone_decay() -> None:
    config = part_config("all", optimizer=OptimizerConfig(weight_decay=0.05))
    model = ready_model(config)
    names = {p: n for n, p in model.named_parameters()}
    groups = parameter_groups(model, config.optimizer)
    decayed = {names[p] for g in groups if g["weight_decay"] for p in g["params"]}
    kept = {names[p] for g in groups if not g["weight_decay"] for p in g["params"]}
    assert decayed | kept == set(select(model, config))
    assert all(n.endswith(("weight", "in_proj_weight")) for n in decayed)
    shapes = {n: p.ndim for p, n in names.items()}
    assert {n for n in kept if shapes[n] > 1} == {
        *("backbone.cls_token", "backbone.storage_tokens", "adapter.level_embed"),
        *("pixel_decoder.encoder.level_encoding", "query_decoder.query_feat.weight"),
        *("query_decoder.query_embed.weight", "query_decoder.level_embed.weight"),
    }


def test_groups__set_rates() -> None:
    config = part_config("adapter", optimizer=OptimizerConfig(adapter_rate=0.5))
    optimizer = make_optimizer(ready_model(config), config.optimizer)
    set_rates(optimizer, 0.01)
    assert {g["rate"]: g["lr"] for g in optimizer.param_groups} == {1.0: 0.01, 0.5: 0.005}


def test_prepare__frozen_matrices_are_small_in_bfloat16() -> None:
    config = part_config("decoder", precision="bfloat16")
    model = ready_model(config)
    assert network_dtype(config, CPU) == torch.bfloat16
    half = {n for n, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert "backbone.blocks.0.attn.qkv.weight" in half
    assert not any(n.startswith("query_decoder.") for n in half)
    assert not any(p.ndim < 2 for n, p in model.named_parameters() if n in half)


def test_prepare__bfloat16_weights_change_no_number() -> None:
    """They are what autocast would make of float32 ones."""
    config = part_config("classifier", precision="bfloat16")
    losses = []
    for model in (ready_model(config), drawn_model().eval()):
        select(model, config)
        losses.append(ImageLosses(model, config, CPU)(drawn_batch(2)).total_B)
    assert torch.equal(*losses)


def test_prepare__trains_bfloat16_checkpoints_in_float32() -> None:
    config = part_config("classifier", precision="bfloat16")
    model = prepare(drawn_model(SMALL).bfloat16(), config, CPU)
    assert model.query_decoder.classifier.weight.dtype == torch.float32
    assert ImageLosses(model, config, CPU)(drawn_batch(1)).total_B.isfinite().all()
