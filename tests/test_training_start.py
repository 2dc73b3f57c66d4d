"""Where training from random weights begins."""

import torch
import torch.nn.functional as F
from small_models import SMALL, drawn_model
from training_runs import CPU, config_of

from dinoidd.training.prepare import prepare
from dinoidd.training.start import start_from_scratch


def test_start__each_query_has_a_class() -> None:
    model = drawn_model()
    start_from_scratch(model, seed=0)
    queries = model.query_decoder.query_feat.weight
    logits = F.layer_norm(queries, (SMALL.decoder.width,)) @ model.query_decoder.classifier.weight.T
    assert logits.argmax(1).tolist() == [q % SMALL.classes for q in range(len(queries))]
    assert not model.query_decoder.classifier.bias.any()


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
