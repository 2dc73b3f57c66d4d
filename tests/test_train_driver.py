"""Training on Ray, from a data set to checkpoints; one Ray for all tests."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from ray_trainings import (
    EPOCHS,
    curve,
    embedded_ray,
    furthest,
    killer,
    make_scenes,
    small,
    weights,
)

from dinoidd.checkpoint.model import load_trained
from dinoidd.errors import ClusterError, OutputError, TrainingError
from dinoidd.log import logger
from dinoidd.segment.run_record import differences
from dinoidd.storage import Store
from dinoidd.train import driver
from dinoidd.train.cache import read_cache_record
from dinoidd.train.cached_feed import CachedSplit
from dinoidd.train.driver import train
from dinoidd.train.extraction import extract
from dinoidd.train.placement import place
from dinoidd.train.plan import make_plan
from dinoidd.train.rows import KINDS
from dinoidd.train.sweep import sweep
from dinoidd.training.config import AugmentationConfig, LossConfig, OptimizerConfig

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module() -> Iterator[None]:
    with embedded_ray():
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def cached(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a finished cached run."""
    output = tmp_path_factory.mktemp("cached") / "run"
    result = train(small(scenes, output))
    assert not result.finished_before
    return output


def test_train__cached(cached: Path, scenes: Path) -> None:
    rows = curve(cached)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert set(weights(cached)) == {f"query_decoder.classifier.{n}" for n in ("weight", "bias")}
    summary = json.loads((cached / "summary.json").read_text())
    assert (summary["epochs"], summary["training_images"]) == (EPOCHS, 12)
    assert summary["best_miou"] == max(row["miou"] for row in rows)
    assert summary["cache_bytes"] == sum(f.stat().st_size for f in cached.glob("cache/*/*.arrow"))
    model = load_trained(cached / "best.safetensors")
    state = model.state_dict()
    for name, tensor in weights(cached, "best").items():
        assert np.array_equal(state[name].numpy(), tensor)
    assert (cached / "training.log").read_text().count("Train Loss") == EPOCHS
    assert (cached / "curves.png").stat().st_size > 1000


def test_train__a_finished_run_says_so_at_once(
    cached: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver.cluster, "connect", lambda *_: pytest.fail("Ray is not needed"))
    result = train(small(scenes, cached))
    assert result.finished_before
    assert result.summary == json.loads((cached / "summary.json").read_text())


def test_train__more_epochs_are_another_run(cached: Path, scenes: Path) -> None:
    with pytest.raises(OutputError) as caught:
        train(small(scenes, cached, epochs=20))
    assert str(caught.value) == (
        f"{cached} belongs to another training: epochs was {EPOCHS} and is 20. Use the same settings "
        f"to go on with it, or another output; checkpoint={cached}/best.safetensors begins where this "
        "one came to"
    )


def test_train__uncached_with_two_workers_is_the_same(
    cached: Path, scenes: Path, tmp_path: Path
) -> None:
    """float32: nothing but the order of sums differs."""
    train(small(scenes, tmp_path / "run", cached=False, workers=2))
    assert furthest(weights(cached), weights(tmp_path / "run")) < 1e-6
    for one, other in zip(curve(cached), curve(tmp_path / "run"), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
        assert one["confusion"] == other["confusion"]
    assert not (tmp_path / "run" / "cache").exists()


def test_train__a_killed_worker_changes_nothing(cached: Path, scenes: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with killer(output, 2) as killed:
        train(small(scenes, output, cache=str(cached / "cache")))
    assert len(killed) == 1
    assert curve(output) == curve(cached)
    assert furthest(weights(output), weights(cached)) == 0
    assert re.search("resumed after epoch [1-5]", (output / "training.log").read_text())


def test_train__whole_network_with_augmentation(scenes: Path, tmp_path: Path) -> None:
    settings = {
        "trained": "all",
        "epochs": 2,
        "loss": LossConfig(kind="pixel", points=100),
        "augmentation": AugmentationConfig(flip=True, scale=(0.5, 2.0), photometric=1.0),
    }
    train(small(scenes, tmp_path / "run", **settings))
    assert len(weights(tmp_path / "run")) > 100
    assert load_trained(tmp_path / "run" / "last.safetensors").config.classes == 26


def test_train__a_loss_that_is_no_number_ends_it_with_a_sentence(
    cached: Path, scenes: Path, tmp_path: Path
) -> None:
    rate = OptimizerConfig(learning_rate=1e30, clip_norm=1e30)
    config = small(scenes, tmp_path / "run", cache=str(cached / "cache"), optimizer=rate)
    with pytest.raises(TrainingError, match=r"lower optimizer\.learning_rate \(now 1e\+30\)"):
        train(config)


def test_place__says_at_once_what_is_missing(scenes: Path) -> None:
    config = replace(small(scenes, "out"), use_gpu=True)
    with pytest.raises(ClusterError) as caught:
        place(config)
    assert str(caught.value) == (
        "1 workers need a GPU each, and the cluster has 0: set workers=1 and use_gpu=false, or add "
        "nodes"
    )
    for use_gpu in (True, False, None):
        with pytest.raises(ClusterError) as caught:
            place(replace(config, accelerator_type="A100", use_gpu=use_gpu))
        assert str(caught.value) == (
            "no node of the cluster has an accelerator of type 'A100', and no autoscaler adds one: it "
            "has no accelerator. Set accelerator_type to one that is there, leave it out, or add such "
            "a node (an autoscaler's group names it by the resource 'accelerator_type:A100')"
        )
    with pytest.raises(ClusterError, match=r"16 workers and their reading tasks need 16\.75 CPUs"):
        place(replace(config, use_gpu=False, workers=16, batch_size=16))


def test_train__a_refused_accelerator_leaves_nothing(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*_: object) -> None:
        pytest.fail("labels need not be read for that")

    monkeypatch.setattr("dinoidd.train.plan.check_labels", unread)
    config = small(scenes, tmp_path / "run", use_gpu=True, accelerator_type="A100")
    with pytest.raises(
        ClusterError, match="no node of the cluster has an accelerator of type 'A100'"
    ):
        train(config)
    with pytest.raises(
        ClusterError, match="no node of the cluster has an accelerator of type 'A100'"
    ):
        sweep(config, {"optimizer.learning_rate": ["1e-3", "1e-2"]})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train__an_upgrade_that_weighs_classes_otherwise_goes_on(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run stays one; its settings are what they were."""
    loss = LossConfig(points=200, class_balance=0.25)
    config = small(scenes, tmp_path / "run", epochs=1, loss=loss)
    train(config)

    def otherwise(loss: LossConfig, *_: object) -> LossConfig:
        return replace(loss, class_weights=(1.5,) * 26)

    monkeypatch.setattr("dinoidd.train.plan.weighted", otherwise)
    assert train(config).finished_before
    other = replace(config, loss=replace(loss, class_balance=0.5))
    with pytest.raises(
        OutputError, match=r"training: loss\.class_balance was 0\.25 and is 0\.5\. U"
    ):
        train(other)


def test_place__an_autoscaler_may_add_what_is_named(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(small(scenes, "out"), use_gpu=None, accelerator_type="A100")
    monkeypatch.setattr("dinoidd.segment.cluster.can_add", lambda bundles: False)
    with pytest.raises(ClusterError, match="names it by the resource 'accelerator_type:A100'"):
        place(config)
    a100 = {"CPU": 1.0, "GPU": 1.0, "accelerator_type:A100": 0.001}
    monkeypatch.setattr("dinoidd.segment.cluster.can_add", lambda bundles: a100 in bundles)
    placement = place(config)
    assert (placement.use_gpu, placement.backend, placement.precision) == (
        *(True, "nccl"),
        "bfloat16",
    )


def test_place__counts_gpus_of_the_wanted_kind(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(small(scenes, "out"), use_gpu=None, accelerator_type="A100", workers=2)
    nodes = [{"CPU": 8.0, "GPU": 8.0, "accelerator_type:A100": 1.0}]
    nodes += [{"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0}]
    monkeypatch.setattr("dinoidd.segment.cluster.can_add", lambda bundles: False)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": n} for n in nodes])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 9.0})
    assert place(config).actors == 8, "the network runs on all of them"
    nodes[0]["GPU"] = 1.0
    with pytest.raises(ClusterError, match="need a GPU of type A100 each, and the cluster has 1: "):
        place(config)


def test_cache__of_something_else_is_refused(cached: Path, scenes: Path, tmp_path: Path) -> None:
    loss = LossConfig(points=100)
    config = small(scenes, tmp_path / "run", cache=str(cached / "cache"), loss=loss, seed=3)
    with pytest.raises(OutputError) as caught:
        train(config)
    assert str(caught.value) == (
        f"the cache {cached}/cache is of something else: model weights was 'random, seed 0, torch "
        f"{_torch()}' and is 'random, seed 3, torch {_torch()}'; points was 200 and is 100; seed was 0 "
        "and is 3. Train as it was made (the seed draws sampled points and views), name another folder "
        "with cache, or remove it"
    )
    assert not list((tmp_path / "run").iterdir()), "the corrected command finds nothing in its way"


def _torch() -> str:
    import torch

    return torch.__version__


def test_cache__of_labels_that_were_drawn_anew_is_another(scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    config = small(data, tmp_path / "run", precision="float32")
    before = make_plan(config).identity()
    label = min((data / "gtFine" / "train").glob("*/*.png"))
    label.write_bytes(max((data / "gtFine" / "train").glob("*/*.png"), key=_size).read_bytes())
    after = make_plan(config).identity()
    (told,) = differences(before, after)
    assert told.startswith("training images was '12 ")


def test_plan__tells_of_a_warmup_longer_than_the_run(
    scenes: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logger, "propagate", True)  # the command line turns that off
    make_plan(small(scenes, tmp_path / "run", optimizer=OptimizerConfig(warmup_steps=18)))
    assert "optimizer.warmup_steps=18, but 6 epochs of 12 images are 18 steps" in caplog.text


def _size(path: Path) -> int:
    return path.stat().st_size


def test_cache__is_finished_without_doing_again_what_is_done(
    cached: Path, scenes: Path, tmp_path: Path
) -> None:
    plan = make_plan(small(scenes, tmp_path / "run", precision="float32"))
    placement = place(plan.config)
    record = extract(plan, placement)
    files = {f: f.read_bytes() for f in (tmp_path / "run").glob("cache/*/*.arrow")}
    assert len(files) == sum(rows.files for rows in record.rows.values())
    lost = {f for i, f in enumerate(sorted(files)) if i % 2}
    for file in [*lost, tmp_path / "run/cache/_SUCCESS"]:
        file.unlink()
    times = {f: f.stat().st_mtime_ns for f in files if f not in lost}
    again = extract(plan, placement)
    assert {f: f.stat().st_mtime_ns for f in times} == times
    assert {f: f.read_bytes() for f in files} == files
    assert again.bytes == record.bytes
    assert sorted(f.name for f in (tmp_path / "run/cache/train").iterdir()) == sorted(
        f.name for f in files if f.parent.name == "train"
    )


def test_cache__broken_images_are_counted_and_left_out(tmp_path: Path) -> None:
    scenes = make_scenes(tmp_path / "data")
    broken = sorted(scenes.glob("leftImg8bit/train/*/*"))[3]
    broken.write_bytes(broken.read_bytes()[:500])
    cached = train(small(scenes, tmp_path / "cached", epochs=2, batch_size=6)).summary
    reasons = cached["unusable"]
    (key,) = reasons["train"]
    assert key.rpartition("/")[2] == broken.name.partition("_leftImg8bit")[0]
    assert reasons["train"][key].startswith(f"image {broken}: ")
    assert reasons["val"] == {}
    assert (cached["training_images"], cached["validation_images"]) == (11, 5)
    train(small(scenes, tmp_path / "uncached", epochs=2, batch_size=6, cached=False))
    assert furthest(weights(tmp_path / "cached"), weights(tmp_path / "uncached")) < 1e-6


def test_cache__views_differ_and_take_turns(scenes: Path, tmp_path: Path) -> None:
    augmentation = AugmentationConfig(flip=True, scale=(0.5, 2.0))
    output = tmp_path / "run"
    train(small(scenes, output, epochs=2, views_per_image=3, augmentation=augmentation))
    folder = Store.open(str(output / "cache"))
    record = read_cache_record(folder)
    assert record is not None
    assert {kind: record.rows[kind].rows for kind in KINDS} == {"train": 36, "val": 5}
    split = CachedSplit(folder.child("train"), record.rows["train"], 1)
    views = [split.read(4, view) for view in range(3)]
    assert [view.view for view in views if view] == [0, 1, 2]
    queries = [view.queries_LQC for view in views if view]
    assert not np.array_equal(queries[0], queries[1])
