"""What the driver shows of a run, with a box that is no actor."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray_trainings import small

from dinoidd.log import logger
from dinoidd.train import relay
from dinoidd.train.relay import Box, Follower, RelayedRecorder
from dinoidd.training.records import EpochRecord


def record_of(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        step=3 * epoch,
        train_loss=1.0,
        val_loss=1.0,
        confusion=np.zeros((3, 3), np.int64),
        iou_K=np.zeros(2),
        miou=0.5,
        pixel_accuracy=0.5,
        learning_rate=1e-3,
        seconds=0.1,
        train_seconds=0.1,
        images_per_second=9.0,
        data_wait_share=0.0,
        peak_memory_bytes=1,
        best_epoch=1,
        best_miou=0.5,
    )


class LocalBox:
    """A Box whose calls are done at once, and answered by `get` when it is asked."""

    def __init__(self) -> None:
        box = Box()
        self.puts: list[Any] = []
        self.put = SimpleNamespace(remote=self._noting(box.put))
        self.take = SimpleNamespace(remote=box.take)

    def _noting(self, put: Callable[[Any], None]) -> Callable[[Any], Any]:
        def remote(message: Any) -> object:
            put(message)
            self.puts.append(object())
            return self.puts[-1]

        return remote


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_SECONDS_BETWEEN", 0.01)
    monkeypatch.setattr(logger, "propagate", True)


def shown(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage().partition(" |")[0] for r in caplog.records if "Epoch" in r.getMessage()]


@pytest.mark.usefixtures("quick")
def test_follower__a_late_answer_loses_no_epoch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A box that is slow to start once ended the showing: no epoch was seen any more."""

    def get(messages: list[Any], timeout: float | None = None) -> list[Any]:
        if timeout is not None:
            raise ray.exceptions.GetTimeoutError("late")
        return messages

    monkeypatch.setattr(relay.ray, "get", get)
    box = LocalBox()
    with caplog.at_level(logging.INFO), Follower(box, small("d", "o"), 3):
        box.put.remote(0)
        for epoch in range(1, 7):
            box.put.remote(record_of(epoch))
    assert shown(caplog) == [f"Epoch {epoch}/6" for epoch in range(1, 7)]


@pytest.mark.usefixtures("quick")
def test_follower__ends_where_the_box_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: list[Any]) -> list[Any]:
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(relay.ray, "get", get)
    with Follower(LocalBox(), small("d", "o"), 3) as follower:
        follower._thread.join(timeout=10)
        assert not follower._thread.is_alive()


def test_relayed_recorder__the_last_message_has_arrived_when_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(relay.ray, "wait", lambda refs, timeout: waited.extend(refs))
    nothing = SimpleNamespace(step=lambda r: None, epoch=lambda r: None, close=lambda: None)
    box = LocalBox()
    recorder = RelayedRecorder(nothing, box, 0)  # type: ignore[arg-type]
    recorder.epoch(record_of(1))
    recorder.epoch(record_of(2))
    recorder.close()
    assert waited == [box.puts[-1]]
    assert len(box.puts) == 3
