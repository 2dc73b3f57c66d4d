"""Deformable attention by gathered rows: the numbers of `grid_sample`."""

import pytest
import torch

from dinoidd.models import deformable, gathered_sampling
from dinoidd.models.deformable import attend, pixel_centres, plain_attention
from dinoidd.models.gathered_sampling import gathered_attention

ONE, THREE = [(5, 7)], [(2, 3), (4, 6), (8, 12)]


def drawn(batch: int, heads: int, width: int, sizes: list, spread: float = 2.0, points: int = 4):
    draw = torch.Generator().manual_seed(0)
    reference = pixel_centres(THREE, torch.device("cpu"))
    cells, samples = sum(r * c for r, c in sizes), heads * len(sizes) * points
    value = torch.randn(batch, cells, heads, width, generator=draw)
    offsets = torch.randn(batch, len(reference), samples * 2, generator=draw) * spread
    logits = torch.randn(batch, len(reference), samples, generator=draw)
    return value, offsets, logits, reference, sizes


@pytest.mark.parametrize("spread", [0.3, 2.0, 1e5], ids=["near", "around", "outside"])
@pytest.mark.parametrize("sizes", [ONE, THREE], ids=["one level", "three"])
@pytest.mark.parametrize(("batch", "heads", "width"), [(1, 1, 64), (2, 3, 8), (2, 2, 70)])
def test_gathered__is_the_plain_version(batch, heads, width, sizes, spread) -> None:
    case = drawn(batch, heads, width, sizes, spread)
    expected = plain_attention(*case)
    torch.testing.assert_close(gathered_attention(*case), expected, rtol=0, atol=3e-5)


def test_gathered__in_bfloat16_is_near() -> None:
    value, offsets, logits, *rest = drawn(1, 2, 64, THREE)
    expected = plain_attention(value, offsets, logits, *rest)
    found = gathered_attention(value.bfloat16(), offsets, logits, *rest)
    assert found.dtype == torch.bfloat16
    assert ((found - expected).norm() / expected.norm()).item() < 0.01


def test_gathered__what_is_no_number_reaches_its_query_alone() -> None:
    value, offsets, logits, *rest = drawn(1, 1, 64, ONE)
    offsets[0, 3] = torch.nan
    found = gathered_attention(value, offsets, logits, *rest)
    assert found[0, 3].isnan().all()
    assert found[0, 4:].isfinite().all()
    assert found[0, :3].isfinite().all()


def test_attend__gathers_wide_heads_that_do_not_learn(monkeypatch) -> None:
    ways = []
    monkeypatch.setattr(deformable, "plain_attention", lambda *a: ways.append("plain"))
    monkeypatch.setattr(gathered_sampling, "gathered_attention", lambda *a: ways.append("rows"))
    wide, narrow = drawn(1, 1, 64, ONE), drawn(1, 1, 8, ONE)
    attend(*wide)
    attend(*narrow)
    wide[0].requires_grad_()
    attend(*wide)
    with torch.no_grad():
        attend(*wide)
    assert ways == ["rows", "plain", "plain", "rows"]
