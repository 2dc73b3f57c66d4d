"""The backbone's matrices in 8 bits, and which dtype a device gets."""

from dataclasses import replace

import pytest
import torch
from small_models import BACKBONE, SMALL, drawn_images, drawn_model
from torch import nn

from dinoidd.errors import ConfigError
from dinoidd.inference import dtype as dtypes
from dinoidd.inference.dtype import in_dtype, pick_dtype
from dinoidd.inference.predictor import Predictor
from dinoidd.models import preset
from dinoidd.models.quantised import Float8Linear, Int8Linear, quantise

GATED = replace(SMALL, backbone=replace(BACKBONE, ffn="swiglu"))
# Roundings of 1/254 of a row's largest number, and of 1/16 of each number on both sides.
LIMIT = {Int8Linear: 0.02, Float8Linear: 0.1}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("kind", LIMIT)
def test_linear__is_near_the_matrix_it_was_made_of(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40).requires_grad_(False)
    linear.weight[3] *= 1000  # a row of its own scale
    linear.weight[4] = 0
    x = torch.randn(2, 5, 96)
    found, expected = kind(linear.weight, linear.bias)(x), linear(x)
    assert found.shape == expected.shape
    for row in range(40):
        assert relative(found[..., row], expected[..., row]) < LIMIT[kind], row
    assert torch.equal(found[..., 4], expected[..., 4])


@pytest.mark.parametrize("kind", LIMIT)
def test_linear__without_bias_holds_a_byte_a_weight(kind: type[nn.Module]) -> None:
    module = kind(torch.randn(64, 128).bfloat16(), None)
    sizes = {n: b.numel() * b.element_size() for n, b in module.named_buffers()}
    assert sizes["weight"] == 64 * 128
    assert module(torch.randn(3, 128).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("config", [SMALL, GATED], ids=["mlp", "swiglu"])
@pytest.mark.parametrize("kind", ["int8", "float8"])
@torch.no_grad()
def test_quantise__the_network_answers_nearly_the_same(kind: str, config) -> None:
    images = drawn_images()
    (expected,) = drawn_model(config)(images)
    model = quantise(drawn_model(config), kind)
    (found,) = model(images)
    assert relative(found.mask_logits, expected.mask_logits) < 0.3  # nine queries follow masks
    assert not torch.equal(found.mask_logits, expected.mask_logits)
    kinds = {type(m) for b in model.backbone.blocks for m in b.modules()}
    assert nn.Linear not in kinds
    assert {"int8": Int8Linear, "float8": Float8Linear}[kind] in kinds


@torch.no_grad()
def test_quantise__keys_still_have_no_bias() -> None:
    model = drawn_model()
    zeros = torch.zeros(1, 1, 32)
    expected = model.backbone.blocks[0].attn.qkv(zeros)
    found = quantise(model, "int8").backbone.blocks[0].attn.qkv(zeros)
    assert torch.equal(found, expected)
    assert found[..., 32:64].abs().max() == 0


def test_predictor__takes_a_quantised_model() -> None:
    model = in_dtype(drawn_model(GATED).bfloat16(), "int8")
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8).numpy()
    (prediction,) = Predictor(model).predict(pixels, [(30, 40)])
    assert prediction.classes.shape == (30, 40)


@pytest.mark.parametrize(
    ("able", "name", "expected"),
    [
        (True, "vits16", "bfloat16"),
        (True, "tiny", "float32"),  # its time is not in matrices
        (False, "vits16", "float32"),
    ],
)
def test_pick_dtype__auto_on_a_cpu(monkeypatch, able: bool, name: str, expected: str) -> None:
    monkeypatch.setattr(dtypes, "cpu_multiplies_bfloat16", lambda: able)
    assert pick_dtype("auto", "cpu", preset(name)) == expected
    assert pick_dtype("auto", "cuda", preset(name)) == "bfloat16"
    assert pick_dtype("int8", "cpu", preset(name)) == "int8"


def test_pick_dtype__says_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"--dtype float8 needs a GPU of compute capability 8.9"):
        pick_dtype("float8", "cpu", SMALL)
    with pytest.raises(
        ConfigError, match="unknown dtype 'int4': there are float32, bfloat16, float8"
    ):
        pick_dtype("int4", "cpu", SMALL)


@pytest.mark.gpu
@torch.no_grad()
def test_linear__on_a_gpu_is_the_cpus() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 128).bfloat16(), torch.randn(64).bfloat16()
    x = torch.randn(48, 128).bfloat16()
    for kind in LIMIT:
        module = kind(weight, bias)
        expected = module(x)
        assert relative(module.cuda()(x.cuda()).cpu(), expected) < 0.01, kind
