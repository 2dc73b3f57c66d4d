"""A run that has stopped names the stage that stands in its way."""

import time

import pytest

from dinoidd.log import logger
from dinoidd.segment.flow import InStage
from dinoidd.segment.standstill import PATIENCE_S, Standstill
from dinoidd.segment.watch import Watch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def standstill(clock: Clock) -> Standstill:
    return Standstill(lambda: "the cluster has 2 CPU, free are nothing", clock)


def stages(**counts: tuple[int, int, int]) -> dict[str, InStage]:
    return {
        name: InStage(running=running, waiting=waiting, finished=finished)
        for name, (running, waiting, finished) in counts.items()
    }


def test_standstill__says_nothing_while_something_moves(
    clock: Clock, standstill: Standstill
) -> None:
    for finished in range(50):
        clock.now += PATIENCE_S / 2
        moving = stages(read=(1, 5, finished), model=(2, 1, finished), write=(0, 0, finished))
        assert standstill.look(moving) is None


def test_standstill__says_nothing_of_stages_without_work(
    clock: Clock, standstill: Standstill
) -> None:
    for finished in range(50):
        clock.now += PATIENCE_S / 2
        done = stages(read=(0, 0, 9), model=(1, 3, finished), write=(0, 0, 9))
        assert standstill.look(done) is None


def test_standstill__names_the_last_stage_that_is_stuck(
    clock: Clock, standstill: Standstill
) -> None:
    stuck = stages(read=(0, 256, 4), model=(0, 4, 0), write=(0, 0, 0))
    assert standstill.look(stuck) is None
    clock.now = PATIENCE_S - 1
    assert standstill.look(stuck) is None
    clock.now = PATIENCE_S
    assert standstill.look(stuck) == (
        "nothing has got through the stage `model` for 2m00s: 0 pieces of work are in it and 4 wait "
        "for it: no actor is ready: the model is being loaded, or its process finds no place; the "
        "cluster has 2 CPU, free are nothing"
    )


def test_standstill__tells_it_again_after_twice_the_time(
    clock: Clock, standstill: Standstill
) -> None:
    stuck = stages(read=(2, 0, 4), model=(0, 0, 4), write=(0, 0, 4))
    told = []
    for clock.now in range(0, 1000, 10):
        if sentence := standstill.look(stuck):
            assert "`read`" in sentence
            told.append(clock.now)
    assert told == [120, 240, 480, 960]


def test_standstill__begins_anew_when_the_stage_has_moved(
    clock: Clock, standstill: Standstill
) -> None:
    for finished in (1, 2):
        stuck = stages(write=(1, 0, finished))
        assert standstill.look(stuck) is None
        clock.now += PATIENCE_S
        assert "store of the output" in (standstill.look(stuck) or "")


def test_standstill__of_the_whole_run_without_a_stuck_stage(
    clock: Clock, standstill: Standstill
) -> None:
    idle = stages(read=(0, 0, 4), model=(0, 0, 4), write=(0, 0, 4))
    told = []
    for clock.now in range(0, 500, 10):
        assert Standstill(str, clock).look(idle, 8) is None
        if sentence := standstill.look(idle, 8):
            told.append((clock.now, sentence))
    ending = "Ray hands none on; the cluster has 2 CPU, free are nothing"
    assert told == [
        (120, f"nothing has been finished for 2m00s, and no stage is known to have work: {ending}"),
        (240, f"nothing has been finished for 4m00s, and no stage is known to have work: {ending}"),
        (480, f"nothing has been finished for 8m00s, and no stage is known to have work: {ending}"),
    ]
    assert standstill.look(idle, None) is None, "none is left to come"
    clock.now += 2 * PATIENCE_S
    assert standstill.look(idle, 9) is None, "one has come"


def test_standstill__of_the_whole_run_while_a_stage_has_just_begun(
    clock: Clock, standstill: Standstill
) -> None:
    idle, begun = stages(read=(0, 0, 4), model=(0, 0, 4)), stages(read=(2, 1, 4), model=(0, 0, 4))
    assert standstill.look(idle, 8) is None
    clock.now = PATIENCE_S - 1
    assert standstill.look(idle, 8) is None
    clock.now = PATIENCE_S
    told = standstill.look(begun, 8) or ""
    assert "and pieces of work are 2 in `read` and 1 before it; the cluster" in told
    for clock.now in range(0, 1000, 50):  # something moves all the time, and none has come yet
        moving = stages(read=(1, 0, int(clock.now)), model=(0, 0, 4))
        assert standstill.look(moving, 8) is None


def test_watch__looks_until_the_end_and_survives_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dinoidd.segment.watch.POLL_S", 0.01)
    looks, told = [], []

    def look() -> dict[str, InStage]:
        looks.append(len(looks))
        if len(looks) < 3:
            raise RuntimeError("changed size during iteration")
        return stages(read=(1, 0, 0))

    with caplog.at_level("WARNING", logger.name), Watch(look, told.append):
        while len(told) < 2:
            time.sleep(0.01)
    assert told[0] == stages(read=(1, 0, 0))
    assert told[-1] == {}
    assert [r.getMessage() for r in caplog.records] == [
        "the run goes on, but could not be looked at: RuntimeError('changed size during iteration')"
    ]
