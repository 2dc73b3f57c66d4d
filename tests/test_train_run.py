"""What a run is, and what of it is told when memory is spent; without Ray's workers."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from ray_trainings import make_scenes, small

from dinoidd.errors import InputError, OutputError, TrainingError
from dinoidd.storage import Store
from dinoidd.storage.uri import printable
from dinoidd.train import driver, stages, states
from dinoidd.train.allocator import expandable_segments
from dinoidd.train.cache import FORMAT, CacheRecord, cache_identity, check_same_cache
from dinoidd.train.ends import ReadExamples
from dinoidd.train.example_rows import read_of, table_of
from dinoidd.train.kept import kept
from dinoidd.train.placement import Placement
from dinoidd.train.plan import Plan, make_plan
from dinoidd.train.rows import Pieces, Rows
from dinoidd.train.run import TrainingRun, check_same_run, run_identity, with_its_weights
from dinoidd.train.stages import ObserveExamples
from dinoidd.train.sweep import _resources, _variant, sweep
from dinoidd.training.cache_file import errors_of
from dinoidd.training.class_weights import weighted
from dinoidd.training.config import LossConfig, TrainConfig
from dinoidd.training.example_set import Read
from dinoidd.training.world import Alone


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


def weighed(plan: Plan, *weights: float, **asked: Any) -> tuple[Plan, TrainConfig]:
    """A plan whose class weights follow from the labels, and what was asked for."""
    loss = LossConfig(points=200, class_balance=0.25)
    settings = replace(plan.config, loss=replace(loss, **asked))
    found = replace(settings, loss=replace(settings.loss, class_weights=weights or None))
    return replace(plan, config=found), settings


def test_resume__weights_from_the_labels_are_those_the_run_began_with(plan: Plan) -> None:
    begun, _ = weighed(plan, 0.5, 2.0)
    run = TrainingRun(identity=run_identity(begun), precision="float32")
    now, asked = weighed(plan, 0.7, 1.5)  # another version has looked at other labels
    with pytest.raises(
        OutputError, match=r"loss\.class_weights was \[0\.5, 2\.0\] and is \[0\.7, 1"
    ):
        check_same_run(run, now)
    same = with_its_weights(run.identity, now, asked)
    assert same.config.loss.class_weights == (0.5, 2.0)
    check_same_run(run, same)


def test_resume__weights_that_were_asked_for_are_compared(plan: Plan) -> None:
    begun, _ = weighed(plan, 0.5, 2.0)
    run = TrainingRun(identity=run_identity(begun), precision="float32")
    given, asked = weighed(plan, 1.0, 2.0, class_weights=(1.0, 2.0))
    with pytest.raises(
        OutputError, match=r"loss\.class_weights was \[0\.5, 2\.0\] and is \[1\.0, 2"
    ):
        check_same_run(run, with_its_weights(run.identity, given, asked))
    other, asked = weighed(plan, 0.4, 3.0, class_balance=0.5)
    with pytest.raises(OutputError) as caught:
        check_same_run(run, with_its_weights(run.identity, other, asked))
    assert ": loss.class_balance was 0.25 and is 0.5. Use" in str(caught.value)
    none, asked = weighed(plan, class_balance=0.0)
    assert with_its_weights(run.identity, none, asked).config.loss.class_weights is None


def test_variant__a_balance_that_is_swept_has_weights_of_its_own(plan: Plan) -> None:
    base, asked = weighed(plan, 0.5, 2.0)
    plain = _variant(base, asked, {"optimizer.learning_rate": 1e-2}).config
    assert plain.loss.class_weights == (0.5, 2.0)
    assert plain.optimizer.learning_rate == 1e-2
    found = [
        _variant(base, asked, {"loss.class_balance": balance}).config.loss.class_weights
        for balance in (0.0, 0.25, 0.5)
    ]
    assert found[0] is None
    whole = weighted(LossConfig(class_balance=0.5), plan.pixels, len(plan.table))
    assert found[2] == whole.class_weights != found[1]


def test_kept__is_what_is_there(plan: Plan, tmp_path: Path) -> None:
    def told(**settings: Any) -> str:
        output = {"output": str(tmp_path / "out")}
        return kept(replace(plan, config=replace(plan.config, **(output | settings))))

    nothing = "nothing is done yet that could be kept; the same command begins anew"
    assert told() == nothing
    cache = tmp_path / "out" / "cache"
    (cache / "train").mkdir(parents=True)
    (cache / "train" / "rows-000000000-000000004.arrow").touch()
    assert told() == "the cache's finished files are kept; run the same command again to resume"
    assert told(cached=False) == nothing
    (cache / "_SUCCESS").touch()
    assert told() == "no epoch is done yet; the cache is kept, and the same command trains from it"
    (tmp_path / "out" / "last.safetensors").touch()
    resumable = "what is done is kept; run the same command again to resume"
    assert told() == told(cached=False) == resumable


def test_last_state__of_a_file_that_does_not_say_it(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(plan, config=replace(plan.config, output=str(tmp_path)))
    (tmp_path / "last.safetensors").touch()
    info = SimpleNamespace(epoch=3, step=9, state={"best_miou": 0.4})
    monkeypatch.setattr(states, "read_local_header", lambda _: None)
    monkeypatch.setattr(states, "read_trained_info", lambda *_: info)
    with pytest.raises(OutputError) as caught:
        states.last_state(there, Alone())
    assert str(caught.value) == (
        f"{tmp_path}/last.safetensors does not say its best_epoch, so this version cannot go on from "
        "it: train into another output, with it as the checkpoint"
    )


@pytest.mark.parametrize("cached", [True, False])
def test_stages_and_feed__names_that_are_not_utf_8(plan: Plan, cached: bool) -> None:
    samples = plan.samples
    odd = [replace(s, key=f"{s.key}\udcff") for s in samples.train]
    odd[1] = replace(odd[1], image=f"{odd[1].image}\udcff")
    named = replace(plan, samples=replace(samples, train=odd))
    if not cached:
        read = Read(example=plan.reader(validation=False).read(odd[0]))
        example = read_of(table_of([read]).to_pylist()[0]).example
        assert example is not None
        assert example.key == odd[0].key
        return
    table = reading(named)(0)
    seen = ObserveExamples(named, pieces(), "cpu", torch.get_num_threads())(table)
    ((key, reason),) = errors_of(seen).items()
    assert key == odd[1].key
    assert printable(odd[1].image) in reason


def reading(plan: Plan) -> ReadExamples:
    readers = {kind: plan.reader(validation=kind == "val") for kind in ("train", "val")}
    return ReadExamples(samples=plan.samples, readers=readers, pieces=pieces(), threads=1)


def pieces() -> Pieces:
    rows = Rows(images=2, views=1, rows_per_file=2)
    return Pieces(rows={"train": rows, "val": rows})


def spent(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_observe_examples__memory_is_spent(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = ObserveExamples(plan, pieces(), "cpu", torch.get_num_threads())
    table = reading(plan)(0)
    assert isinstance(observer(table), pa.Table)
    monkeypatch.setattr(stages, "observe", spent)
    sentence = r"^out of memory on cpu: lower micro_batch \(now 4\) or image_size \(now 64\)$"
    with pytest.raises(TrainingError, match=sentence):
        observer(table)
    monkeypatch.setattr(torch.nn.Module, "to", spent)
    with pytest.raises(TrainingError, match=sentence):
        ObserveExamples(plan, pieces(), "cpu", torch.get_num_threads())


def test_cache__of_another_format_is_refused(plan: Plan, tmp_path: Path) -> None:
    identity, folder = cache_identity(plan), Store.open(str(tmp_path))
    record = CacheRecord(identity=identity, classes={}, precision="float32", rows={})
    check_same_cache(record, identity, folder)  # what has no format is of the first
    with pytest.raises(OutputError) as caught:
        check_same_cache(replace(record, format=FORMAT + 1), identity, folder)
    assert str(caught.value) == (
        f"the cache {tmp_path} has format {FORMAT + 1}, and this version computes format {FORMAT}: "
        "remove it, or name another folder with cache"
    )


def test_cache__images_of_other_times_are_told_of(plan: Plan, tmp_path: Path) -> None:
    identity, folder = cache_identity(plan), Store.open(str(tmp_path))
    before = identity | {"training images": "12 0123456789ab"}
    record = CacheRecord(identity=before, classes={}, precision="float32", rows={})
    run = TrainingRun(
        identity=run_identity(plan) | {"training images": "12 a"}, precision="float32"
    )
    told = "a copy counts as new unless it keeps its files' times, as cp -a and rsync -a do. "
    with pytest.raises(OutputError, match=f"{told}Train as it was made"):
        check_same_cache(record, identity, folder)
    with pytest.raises(OutputError, match=f"{told}Use the same settings"):
        check_same_run(run, plan)


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_allocator__what_a_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    placement = Placement(workers=1, actors=1, use_gpu=True, accelerator_type="A100", threads=1)
    for known in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(known, raising=False)
    ours = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert driver._environment(placement) == {"env_vars": ours}
    assert driver._environment(replace(placement, use_gpu=False)) is None
    monkeypatch.setenv(name, "max_split_size_mb:128")  # workers on other nodes do not see it
    assert driver._environment(placement) == {"env_vars": {name: "max_split_size_mb:128"}}
    expandable_segments()
    assert os.environ[name] == "max_split_size_mb:128"


def test_sweep__trials_go_to_the_accelerator_that_is_named() -> None:
    placement = Placement(workers=1, actors=1, use_gpu=True, accelerator_type="A100", threads=1)
    expected = {"cpu": 1.0, "gpu": 0.25, "accelerator_type:A100": 0.001}
    assert _resources(placement) == expected


def test_sweep__extracts_in_the_recipes_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []

    def found(config: TrainConfig) -> None:
        seen.append(config)
        raise InputError("no data")

    monkeypatch.setattr("dinoidd.train.sweep.find", found)
    config = small("data", "out", workers=2, micro_batch=1)
    with pytest.raises(InputError, match="no data"):
        sweep(config, {"optimizer.learning_rate": ["1e-3"]})
    assert (seen[0].workers, seen[0].network_batch) == (1, 1)
