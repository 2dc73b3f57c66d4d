"""What a run is, and what of it is told when memory is spent; without Ray's workers."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch
from ray_trainings import make_scenes, small

from dinoidd.errors import OutputError, TrainingError
from dinoidd.train import stages
from dinoidd.train.cache import Rows
from dinoidd.train.plan import Plan, make_plan
from dinoidd.train.run import TrainingRun, check_same_run, run_identity
from dinoidd.train.stages import ObserveExamples, Pieces, ReadExamples


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("run")
    return make_plan(small(make_scenes(folder / "data"), folder / "out"))


def changed(plan: Plan, **settings: Any) -> Plan:
    return replace(plan, config=replace(plan.config, cached=False, **settings))


@pytest.mark.parametrize("trained", ["classifier", "decoder", "head"])
def test_identity__workers_are_free_where_norms_are_frozen(plan: Plan, trained: str) -> None:
    one, two = (changed(plan, trained=trained, workers=n, micro_batch=1) for n in (1, 2))
    assert run_identity(one) == run_identity(two)


@pytest.mark.parametrize("trained", ["adapter", "last_n_blocks", "all"])
def test_identity__workers_decide_where_norms_learn(plan: Plan, trained: str) -> None:
    one, two = (changed(plan, trained=trained, workers=n, micro_batch=1) for n in (1, 2))
    run = TrainingRun(identity=run_identity(one), precision="float32")
    check_same_run(run, one)
    with pytest.raises(OutputError, match="belongs to another training: workers"):
        check_same_run(run, two)
    with pytest.raises(OutputError, match="belongs to another training: micro_batch"):
        check_same_run(run, changed(plan, trained=trained, micro_batch=2))


def pieces() -> Pieces:
    rows = Rows(images=2, views=1, rows_per_file=2)
    return Pieces(rows={"train": rows, "val": rows})


def spent(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_observe_examples__memory_is_spent(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = ObserveExamples(plan, pieces(), "cpu", torch.get_num_threads())
    table = ReadExamples(plan=plan, pieces=pieces())(0)
    assert isinstance(observer(table), pa.Table)
    monkeypatch.setattr(stages, "observe", spent)
    sentence = r"^out of memory on cpu: lower micro_batch \(now 4\) or image_size \(now 64\)$"
    with pytest.raises(TrainingError, match=sentence):
        observer(table)
    monkeypatch.setattr(torch.nn.Module, "to", spent)
    with pytest.raises(TrainingError, match=sentence):
        ObserveExamples(plan, pieces(), "cpu", torch.get_num_threads())
