"""What a person sees while a run goes on."""

import logging

import pytest
from segment_runs import TABLE

from dinoidd.log import duration, logger
from dinoidd.segment import pace, progress
from dinoidd.segment.pace import Pace
from dinoidd.segment.progress import Progress
from dinoidd.segment.summary import format_summary, summarise
from dinoidd.segment.tally import Tally


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(pace, "time", clock)
    return clock


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logger, "propagate", True)  # the command line turns that off
    caplog.set_level(logging.INFO, "dinoidd")
    return caplog


def done(images: int, failed: int = 0) -> Tally:
    tally = Tally(images=images, ok=images - failed)
    tally.errors["empty"] = failed
    return tally


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (12.4, "12s"),
        (59.6, "1m00s"),
        (409, "6m49s"),
        (3600, "1h 0m"),
        (11_100, "3h 5m"),
        (2 * 86_400 + 3 * 3600 + 59, "2d 3h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_line__counts_rate_and_time_left(clock: Clock) -> None:
    bar = Progress(10_000, 0, interactive=False)
    clock.now += 60  # the model loads
    bar.add(done(200))
    assert bar.line() == "200 of 10,000 images (2.0%), 0 errors"
    clock.now += 50
    bar.add(done(1_000, failed=3))
    assert bar.line() == "1,200 of 10,000 images (12.0%), 3 errors, 20.0 images/s, 7m20s left"


def test_line__rows_of_earlier_sessions_are_done_but_not_fast(clock: Clock) -> None:
    bar = Progress(10_000, 8_000, interactive=False)
    clock.now += 10
    assert bar.line() == "8,000 of 10,000 images (80.0%), 0 errors"
    bar.add(done(100))
    clock.now += 10
    bar.add(done(100))
    assert bar.line() == "8,200 of 10,000 images (82.0%), 0 errors, 10.0 images/s, 3m00s left"


def test_progress__a_log_line_now_and_then(clock: Clock, logged: pytest.LogCaptureFixture) -> None:
    bar = Progress(1_000, 0, interactive=False)
    for _ in range(100):
        clock.now += 1
        bar.add(done(8))
    bar.close()
    assert len(logged.messages) == 10
    assert logged.messages[0].startswith("80 of 1,000 images (8.0%)")


def test_progress__a_bar_on_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture, logged: pytest.LogCaptureFixture
) -> None:
    bar = Progress(1_000, 500, interactive=True)
    clock.now += 60
    bar.add(done(250, failed=2))
    bar.close()
    shown = capsys.readouterr().err
    assert "750/1000" in shown
    assert "errors=2" in shown
    assert logged.messages == []


def test_pace__start_up_is_told_apart(clock: Clock) -> None:
    run = Pace()
    clock.now += 30
    run.add(8)  # the first piece waited for the model
    for _ in range(4):
        clock.now += 2
        run.add(8)
    seen = run.to_dict()
    assert (seen["images"], seen["seconds"], seen["startup_seconds"]) == (40, 38, 30)
    assert seen["steady_images_per_second"] == pytest.approx(24 / 6)
    assert seen["steady_images"] == 24
    assert seen["images_per_second"] == pytest.approx(40 / 38)


def test_pace__the_first_pieces_are_not_steady(clock: Clock) -> None:
    """They waited together for the process that writes."""
    run = Pace()
    clock.now += 30
    for _ in range(7):
        run.add(8)
    for _ in range(25):
        clock.now += 2
        run.add(8)
    seen = run.to_dict()
    assert seen["startup_seconds"] == 30
    assert seen["steady_images_per_second"] == pytest.approx(4)
    assert seen["steady_images"] == 8 * (32 - 9)


def test_pace__one_piece_has_no_steady_rate(clock: Clock) -> None:
    run = Pace()
    clock.now += 20
    run.add(8)
    assert run.to_dict()["images_per_second"] == pytest.approx(8 / 20)
    assert run.to_dict()["steady_images_per_second"] is None


def test_pace__nothing_done(clock: Clock) -> None:
    run = Pace()
    clock.now += 2
    assert run.to_dict() == {
        "images": 0,
        "seconds": 2,
        "startup_seconds": 0,
        "images_per_second": 0,
        "steady_images_per_second": None,
        "steady_images": 0,
    }


def tally_of_a_run() -> Tally:
    tally = Tally(images=10, ok=7, bytes_read=2_500_000, bytes_written=999)
    tally.errors.update(empty=1, truncated=2)
    tally.pixels.update(road=600, sky=300, car=100)
    tally.images_with.update(road=7, sky=7, car=1)
    tally.seconds.update(fetch=1.0, model=3.0)
    return tally


def test_summary__figures(clock: Clock) -> None:
    summary = summarise(tally_of_a_run(), tally_of_a_run().seconds, TABLE, Pace())
    assert summary["error_rate"] == pytest.approx(0.3)
    assert list(summary["errors"]) == ["truncated", "empty"]
    largest = summary["largest_classes"]
    assert [c["name"] for c in largest] == ["road", "sky", "car"], "only those that are there"
    assert [c["share_of_pixels"] for c in largest] == [0.6, 0.3, 0.1]
    assert largest[2]["share_of_images"] == pytest.approx(1 / 7)


def test_summary__as_text(clock: Clock) -> None:
    text = format_summary(summarise(tally_of_a_run(), tally_of_a_run().seconds, TABLE, Pace()))
    assert "images   10 (7 ok, 3 errors)" in text
    assert "errors   truncated 2, empty 1" in text
    assert "2.5 MB read, 999 B written" in text
    assert "fetch 25%, decode 0%, model 75%" in text
    assert "road                    60.00%  100.0%" in text


def test_summary__of_a_run_without_a_good_image(clock: Clock) -> None:
    tally = Tally(images=2)
    tally.errors["missing"] = 2
    assert "images   2 (0 ok, 2 errors)" in format_summary(
        summarise(tally, tally.seconds, TABLE, Pace())
    )
