"""Where training from random weights begins."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from small_models import SMALL, drawn_images, drawn_model
from training_runs import CPU, config_of

from dinoidd.models import preset, random_segmenter
from dinoidd.training.prepare import prepare
from dinoidd.training.start import start_from_scratch


def test_start__each_query_has_a_class() -> None:
    model = drawn_model()
    start_from_scratch(model, seed=0)
    queries = model.query_decoder.query_feat.weight
    logits = F.layer_norm(queries, (SMALL.decoder.width,)) @ model.query_decoder.classifier.weight.T
    assert logits.argmax(1).tolist() == [q % SMALL.classes for q in range(len(queries))]
    assert not model.query_decoder.classifier.bias.any()


def test_start__a_wide_and_deep_decoder_tells_queries_apart_to_the_last_layer() -> None:
    decoder = replace(
        preset("tiny").decoder, width=256, heads=8, feedforward=512, query_layers=9, queries=100
    )
    model = random_segmenter(replace(preset("tiny"), decoder=decoder, classes=11))
    start_from_scratch(model, seed=0)
    with torch.no_grad():
        first, *_, last = model(drawn_images(), every_layer=True)
    for output in (first, last):
        chances = output.class_logits[0].softmax(-1)
        assert set(chances[:, :-1].argmax(1).tolist()) == set(range(11))
        assert 1 - chances.max() > 1e-3  # what is sure has no gradient
        assert (1 - chances.amax(1)).median() > 0.1
    drift = F.cosine_similarity(first.queries, last.queries, dim=-1)
    assert drift.min() > 0.9


def test_start__same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.rand(1)
        model = drawn_model()
        start_from_scratch(model, seed=3)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][n], t) for n, t in states[1].items())


def test_start__only_from_random_weights_of_which_all_are_trained() -> None:
    drawn = drawn_model().adapter.spm.fc1.weight
    for settings, changed in (
        ({"trained": "all"}, True),
        ({"trained": "adapter"}, False),
        ({"trained": "all", "preset": None, "checkpoint": "c"}, False),
    ):
        model = prepare(drawn_model(), config_of(**settings), CPU)
        assert torch.equal(model.adapter.spm.fc1.weight, drawn) != changed
