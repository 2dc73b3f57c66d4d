"""Whole runs: a cache changes nothing, nor does the way a step is cut; they stop and go on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import SMALL
from torch import nn
from training_runs import (
    CLASSES,
    CPU,
    LOSS,
    SIZE,
    Run,
    assert_same_states,
    config_of,
    drawn_batch,
    memory_feed,
    ready_model,
    run,
)

from dinoidd.errors import DivergedError, TrainingError
from dinoidd.models import preset, random_segmenter
from dinoidd.models.argmax import argmax_classes
from dinoidd.models.config import resized
from dinoidd.models.semantic import class_scores
from dinoidd.training.config import LossConfig, OptimizerConfig, TrainConfig
from dinoidd.training.memory import out_of_memory_told
from dinoidd.training.observe import observe
from dinoidd.training.prepare import prepare
from dinoidd.training.records import StepRecord
from dinoidd.training.step import ImageLosses, tensor
from dinoidd.training.trainer import EpochSums

FAST = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)


def assert_same_run(ours: Run, other: Run, tolerance: float = 1e-5) -> None:
    """Losses of every epoch and the last weights."""
    assert np.abs(np.subtract(ours.losses, other.losses)).max() < tolerance
    assert_same_weights(ours.states[-1].weights, other.states[-1].weights, tolerance)


def assert_same_weights(
    ours: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float
) -> None:
    assert ours.keys() == other.keys()
    for name, weights in other.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=tolerance, msg=name)


def classifier_weights(made: Run) -> torch.Tensor:
    return made.states[-1].weights["query_decoder.classifier.weight"]


@pytest.mark.parametrize(
    "loss",
    [LOSS, replace(LOSS, deep_supervision=True), replace(LOSS, kind="pixel")],
    ids=["set", "deep", "pixel"],
)
def test_fit__cached_equals_uncached_on_tiny(loss: LossConfig) -> None:
    config = config_of(loss=loss, optimizer=FAST)
    runs = []
    for cached in (False, True):
        model = random_segmenter(resized(preset("tiny"), classes=CLASSES), seed=1)
        runs.append(run(config, model=prepare(model, config, CPU), cached=cached))
    uncached, cached_run = runs
    assert_same_run(cached_run, uncached)
    for ours, other in zip(cached_run.records.epochs, uncached.records.epochs, strict=True):
        assert np.array_equal(ours.confusion, other.confusion)
    start = random_segmenter(resized(preset("tiny"), classes=CLASSES), seed=1)
    moved = (classifier_weights(cached_run) - start.query_decoder.classifier.weight).abs().max()
    assert moved > 1e-2  # it is not that nothing was learned


@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("bfloat16", True)])
@pytest.mark.parametrize("trained", ["head", "classifier"])
def test_precision__float32_is_no_tf32_on_gpus(
    trained: str, precision: str, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    config = config_of(trained=trained, precision=precision)
    if trained == "classifier":  # the extraction of a cache
        observe(ready_model(config), drawn_batch(1), config, validation=False)
    else:
        ImageLosses(ready_model(config), config, CPU)
    assert torch.backends.cudnn.allow_tf32 == rounded


def test_fit__cached_bfloat16_stays_near() -> None:
    config = config_of(precision="bfloat16", optimizer=FAST)
    uncached, cached = run(config), run(config, cached=True)
    assert_same_run(cached, uncached, 1e-4)


def test_fit__accumulation_equals_one_batch() -> None:
    whole, cut = (run(config_of(trained="head", micro_batch=micro, epochs=2)) for micro in (4, 1))
    assert cut.losses == pytest.approx(whole.losses, rel=1e-5)
    assert_same_states(cut.states[-1], whole.states[-1])
    assert [s.grad_norm for s in cut.records.steps] == pytest.approx(
        [s.grad_norm for s in whole.records.steps], rel=1e-4
    )


@pytest.mark.parametrize("trained", ["classifier", "all"])
def test_fit__resumed_equals_uninterrupted(trained: str) -> None:
    config = config_of(trained=trained, optimizer=FAST)
    straight = run(config)
    assert [(s.epoch, s.step) for s in straight.states] == [(1, 2), (2, 4), (3, 6)]
    resumed = run(config, state=straight.states[0])
    assert resumed.losses == straight.losses[2:]
    assert_same_weights(resumed.states[-1].weights, straight.states[-1].weights, 0)
    assert_same_weights(resumed.states[-1].optimizer, straight.states[-1].optimizer, 0)
    assert resumed.result == straight.result
    assert [s.step for s in resumed.records.steps] == [3, 4, 5, 6]


def test_fit__a_finished_run_does_nothing_more() -> None:
    config = config_of(epochs=1)
    finished = run(config)
    again = run(config, state=finished.states[-1])
    assert again.result == finished.result
    assert again.records.epochs == []


def test_fit__learns() -> None:
    """Patches of five colors, the whole network from scratch."""
    loss = LossConfig(kind="pixel", points=512, deep_supervision=True)
    optimizer = OptimizerConfig(
        learning_rate=5e-3, backbone_rate=1.0, layer_decay=1.0, betas=(0.9, 0.99), warmup_steps=3
    )
    made = run(config_of(trained="all", epochs=15, loss=loss, optimizer=optimizer))
    first, last = made.records.epochs[0], made.records.epochs[-1]
    assert last.train_loss < 0.6 * first.train_loss
    assert made.result.best_miou > 0.3
    assert made.best[-1] == made.result.best_epoch


def test_fit__records() -> None:
    made = run(config_of(optimizer=FAST))
    steps, epochs = made.records.steps, made.records.epochs
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert [s.learning_rate for s in steps[:2]] == pytest.approx([5e-3, 1e-2])
    for step in steps:
        assert step.loss == pytest.approx(sum(step.parts.values()), rel=1e-5)
        assert list(step.parts) == ["class", "mask", "dice"]
    assert [math.isnan(s.images_per_second) for s in steps] == [True] + 5 * [False]
    assert all(s.images_per_second > 0 and 0 <= s.data_wait_share < 1 for s in steps[1:])
    assert epochs[1].train_loss == pytest.approx((steps[2].loss + steps[3].loss) / 2)
    assert (epochs[2].step, epochs[2].learning_rate) == (6, steps[5].learning_rate)
    assert epochs[0].peak_memory_bytes > 1e7
    assert epochs[0].seconds > epochs[0].train_seconds > 0
    assert epochs[0].images_per_second == pytest.approx(steps[1].images_per_second)
    assert epochs[0].data_wait_share == pytest.approx(steps[1].data_wait_share)


def test_epoch_sums__start_up_is_no_part_of_the_rate() -> None:
    def step(rate: float, share: float) -> StepRecord:
        return StepRecord(
            step=1,
            epoch=1,
            loss=1.0,
            parts={},
            learning_rate=1e-3,
            grad_norm=1.0,
            images_per_second=rate,
            data_wait_share=share,
        )

    sums = EpochSums()
    sums.add(step(math.nan, math.nan), 8.0)
    assert sums.steps_per_second == 1 / 8  # there is no other
    assert math.isnan(sums.data_wait_share)
    sums.add(step(4.0, 0.5), 1.0)
    sums.add(step(2.0, 0.2), 3.0)
    assert sums.steps_per_second == 2 / 4
    assert sums.data_wait_share == pytest.approx((0.5 + 0.6) / 4)
    assert sums.seconds == 12.0


def test_fit__validation_is_what_inference_says() -> None:
    config = config_of(epochs=1)
    made = run(config)
    record, val = made.records.epochs[0], memory_feed(config).val_images
    assert record.confusion.sum() == 3 * SIZE * SIZE
    assert [p.key for p in record.pictures] == val.keys
    model = made.model.eval()
    norm = torch.tensor(val.images_BSS3).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (SMALL.mean, SMALL.std))
    with torch.no_grad():
        output = model((norm - mean) / std)[-1]
    for i, picture in enumerate(record.pictures):
        scores = class_scores(output.class_logits[i], output.mask_logits[i], (SIZE, SIZE))
        assert np.array_equal(picture.prediction_SS, argmax_classes(scores).numpy())
        assert np.array_equal(picture.truth_SS, val.labels_BSS[i])


def test_fit__stops_early() -> None:
    slow = OptimizerConfig(learning_rate=1e-12)
    made = run(config_of(epochs=9, patience=2, optimizer=slow))
    assert made.best == [1]
    assert (made.result.epochs, made.result.stopped_early) == (3, True)


def test_fit__loss_is_not_a_number() -> None:
    config = config_of(trained="head")
    model = ready_model(config)
    passes: list[int] = []

    def poison(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        return output * float("nan") if len(passes) > 5 else output  # 2 steps, 3 validation images

    model.pixel_decoder.mask_feature.register_forward_hook(poison)
    with pytest.raises(DivergedError) as caught:
        run(config, model=model)
    images = np.random.default_rng(2).permutation(8)[:4]
    assert str(caught.value) == (
        "the loss is nan in epoch 2, step 3, on "
        f"{', '.join(f'train/{i}' for i in images)}: lower optimizer.learning_rate (now 0.0001), "
        "raise optimizer.warmup_steps (now 0), or set precision=float32"
    )


def test_fit__gradient_is_not_a_number() -> None:
    config = config_of(trained="head")
    model = ready_model(config)
    model.query_decoder.post_norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match="the gradient's norm is inf in epoch 1, step 1, on tr"):
        run(config, model=model)


def test_out_of_memory__names_settings() -> None:
    config = config_of(trained="all", image_size=512)
    with pytest.raises(TrainingError) as caught, out_of_memory_told(config, CPU):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert str(caught.value) == (
        "out of memory on cpu: lower micro_batch (now 4) or image_size (now 512), or set "
        "activation_checkpointing=true, or spread the model over several workers with sharding=fsdp"
    )


def test_out_of_memory__cached_classifier() -> None:
    with pytest.raises(TrainingError) as caught, out_of_memory_told(config_of(), CPU):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
    assert str(caught.value) == (
        "out of memory on cpu: lower micro_batch (now 4) or image_size (now the model's own)"
    )


def spent(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_out_of_memory__in_the_optimizers_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", spent)
    with pytest.raises(TrainingError, match=r"^out of memory on cpu: lower micro_batch \(now 4\)"):
        run(config_of(trained="head"))


def test_out_of_memory__when_the_model_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "to", spent)
    with pytest.raises(TrainingError, match=r"^out of memory on cpu: lower micro_batch \(now 4\)"):
        ready_model(config_of(trained="head"))


def test_out_of_memory__other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="a bug"), out_of_memory_told(config_of(), CPU):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(("precision", "queries", "masks"), [
    ("float32", np.float32, np.float32), ("bfloat16", np.uint16, np.float16),
])  # fmt: skip
def test_observe__dtypes(precision: str, queries: type, masks: type) -> None:
    config: TrainConfig = config_of(precision=precision)
    model, batch = ready_model(config), drawn_batch(2)
    for i, seen in enumerate(observe(model, batch, config, validation=True)):
        assert (seen.key, seen.view) == (batch.keys[i], 0)
        assert seen.queries_LQC.shape == (1, 9, 32)
        assert (seen.queries_LQC.dtype, seen.mask_logits_Qhw.dtype) == (queries, masks)
        assert tensor(seen.queries_LQC).isfinite().all()
        assert np.array_equal(seen.label_SS, batch.labels_BSS[i])
    (train, *_) = observe(model, batch, config, validation=False)
    assert train.arrays.keys() == {
        *("queries_LQC", "classes_G", "match_bce_LQG", "match_dice_LQG"),
        *("loss_bce_LQG", "loss_dice_LQG"),
    }
