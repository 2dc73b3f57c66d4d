"""Matrices laid out for a CPU's bfloat16 units give what they gave before."""

import pytest
import torch
from small_models import drawn_images, drawn_model, varied_model
from torch import nn

from dinoidd.models.backbone import QKV
from dinoidd.models.fusion import fuse
from dinoidd.models.packed import PackedLinear, pack_linears
from dinoidd.models.relu_linear import ReluLinear

needs_units = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU without bfloat16 units"
)


@needs_units
@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Linear, ReluLinear, QKV])
def test_packed_linear__is_what_it_was(kind: type[nn.Linear]) -> None:
    torch.manual_seed(0)
    plain = QKV(48, bias=True) if kind is QKV else kind(48, 144)
    plain = plain.bfloat16()
    packed = pack_linears(nn.Sequential(plain))[0]
    assert isinstance(packed, PackedLinear)
    x_BND = torch.randn(2, 70, 64).bfloat16()[:, 5:, :48]  # no plain layout
    torch.testing.assert_close(packed(x_BND), plain(x_BND), rtol=0.02, atol=0.02)


@needs_units
@torch.no_grad()
def test_packed_segmenter__gives_the_same_masks() -> None:
    model = fuse(varied_model().bfloat16())
    image_B3HW = drawn_images(2).bfloat16()
    plain = model(image_B3HW)[-1].mask_logits
    packed = pack_linears(model)(image_B3HW)[-1].mask_logits
    assert not [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert (
        torch.nn.functional.cosine_similarity(plain.float().flatten(), packed.float().flatten(), 0)
        > 0.999
    )


def test_pack_linears__leaves_float32_alone() -> None:
    model = drawn_model()
    assert not [m for m in pack_linears(model).modules() if isinstance(m, PackedLinear)]
