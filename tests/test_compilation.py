"""A compiled model: the same answers, one compilation for all blocks and all batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import SMALL, drawn_model, varied_model

from dinoidd.inference import compilation, predictor
from dinoidd.inference.predictor import Predictor

SIZES = [(50, 70), (64, 64), (33, 40)]


@pytest.fixture
def eagerly(monkeypatch):
    """The same graphs, run as they are: a C++ compiler takes minutes."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = compilation.compile_parts
    monkeypatch.setattr(predictor, "compile_parts", lambda m: compiled(m, backend="aot_eager"))
    yield
    torch.compiler.reset()


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_predictor__compiled_answers_the_same_and_compiles_once(eagerly) -> None:
    expected = Predictor(varied_model()).predict(pixels(3), SIZES)
    compiled = Predictor(varied_model(), compiled_batch=4)
    found = compiled.predict(pixels(3), SIZES)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.classes == theirs.classes).mean() > 0.999
        assert ours.certainty.confidence == pytest.approx(theirs.certainty.confidence, abs=1e-5)
    before = graphs()
    assert before == 4  # a block, the adapter and both decoders
    assert len(compiled.predict(pixels(1), SIZES[:1])) == 1
    assert len(compiled.predict(pixels(4), [*SIZES, SIZES[0]])) == 4
    assert graphs() == before


@pytest.fixture(
    params=[
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ]
)
def four_fit(monkeypatch, request) -> tuple[Predictor, list[int]]:
    """A predictor for batches of 8 of which 4 fit, and the sizes that it tried."""
    monkeypatch.setattr(predictor, "compile_parts", lambda model: model)
    scorer, seen = Predictor(drawn_model(replace(SMALL, classes=3)), compiled_batch=8), []

    def short_of_memory(module, inputs) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 4:
            raise request.param

    scorer.model.register_forward_pre_hook(short_of_memory)
    return scorer, seen


def test_predictor__one_image_is_not_lost_for_what_it_is_filled_up_with(four_fit) -> None:
    scorer, seen = four_fit
    assert len(scorer.predict(pixels(1), SIZES[:1])) == 1
    assert len(scorer.predict(pixels(3), SIZES)) == 3
    assert seen == [8, 4, 4]


def test_predictor__too_many_images_are_told_and_fewer_filled_up_from_then_on(four_fit) -> None:
    scorer, seen = four_fit
    with pytest.raises(RuntimeError, match=r"out of memory|ALLOC_FAILED"):
        scorer.predict(pixels(8), [(64, 64)] * 8)
    for _ in range(2):
        assert len(scorer.predict(pixels(3), SIZES)) == 3
    assert seen == [8, 4, 4]


@pytest.mark.gpu
@pytest.mark.timeout(300)
def test_predictor__compiled_on_a_gpu_answers_the_same() -> None:
    expected = Predictor(varied_model(), "cuda").predict(pixels(3), SIZES)
    found = Predictor(varied_model(), "cuda", compiled_batch=4).predict(pixels(3), SIZES)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.classes == theirs.classes).mean() > 0.999
