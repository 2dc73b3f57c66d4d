"""The rewrites for inference change nothing but rounding."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import BACKBONE, SMALL, drawn_images, drawn_model
from torch import Tensor, nn

from dinoidd.checkpoint.load import cast, load_published
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.inference.parity import read_reference_config
from dinoidd.models import SegmenterConfig
from dinoidd.models.fusion import fuse

REFERENCE = Path(__file__).parent / "fixtures/dinov3_reference/tiny-swiglu64"
GATED = replace(SMALL, backbone=replace(BACKBONE, ffn="swiglu"))
LINEAR = replace(GATED, head="linear")


def distance(ours: Tensor, expected: Tensor) -> float:
    """The largest difference over the standard deviation."""
    return ((ours - expected).abs().max() / expected.std()).item()


@pytest.mark.parametrize("config", [SMALL, GATED], ids=["mlp", "swiglu"])
@torch.no_grad()
def test_fuse__every_layer_answers_the_same(config: SegmenterConfig) -> None:
    images = drawn_images(batch=2)
    expected = drawn_model(config)(images, every_layer=True)
    found = fuse(drawn_model(config))(images, every_layer=True)
    assert len(found) == len(expected) == config.decoder.query_layers + 1
    for ours, theirs in zip(found, expected, strict=True):
        assert distance(ours.mask_logits, theirs.mask_logits) < 2e-5
        assert distance(ours.class_logits, theirs.class_logits) < 2e-5


@torch.no_grad()
def test_fuse__gives_the_reference_outputs() -> None:
    config = read_reference_config(REFERENCE / "config.json")
    files = REFERENCE / "backbone.pth", REFERENCE / "m2f_head.pth"
    expected = TensorFile(REFERENCE / "expected.safetensors")
    model = fuse(load_published(config, *files, new_classifier=False))
    (output,) = model(expected.copy("image"))
    assert distance(output.mask_logits, expected.copy("predictor.pred_masks")) < 1e-4
    assert distance(output.class_logits, expected.copy("predictor.pred_logits")) < 1e-4


@torch.no_grad()
def test_fuse__a_linear_head_stays_the_same() -> None:
    images = drawn_images()
    (expected,) = drawn_model(LINEAR)(images)
    (found,) = fuse(drawn_model(LINEAR))(images)
    assert distance(found.class_logits, expected.class_logits) < 2e-5


@torch.no_grad()
def test_fuse__twice_is_once() -> None:
    images, model = drawn_images(), fuse(drawn_model(GATED))
    (once,) = model(images)
    (twice,) = fuse(model)(images)
    assert torch.equal(once.mask_logits, twice.mask_logits)


@torch.no_grad()
def test_fuse__keeps_the_dtype_and_leaves_no_norm_behind() -> None:
    model = fuse(cast(drawn_model(GATED), torch.bfloat16))
    (output,) = model(drawn_images().bfloat16())
    assert output.mask_logits.dtype == torch.bfloat16
    assert not [m for m in model.adapter.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not [p for n, p in model.named_parameters() if p.requires_grad and "fc1" in n]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_fuse__the_finest_map_never_has_the_backbones_width() -> None:
    narrow = replace(SMALL, decoder=replace(SMALL.decoder, width=64))
    model, seen = fuse(drawn_model(narrow)), []
    model.pixel_decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(drawn_images(height=64, width=96))
    assert [tuple(m.shape[1:]) for m in seen[0]] == [
        (64, 16, 24),
        (32, 8, 12),
        (32, 4, 6),
        (32, 2, 3),
    ]
