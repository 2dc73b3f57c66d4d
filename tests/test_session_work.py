"""How a session takes its pieces: what it lets go in an outage, and what it says when nothing comes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dinoidd.errors import OutageError, OutputError
from dinoidd.log import logger
from dinoidd.segment import merging as merging_module
from dinoidd.segment.flow import InStage
from dinoidd.segment.layout import IMAGES, Layout
from dinoidd.segment.merging import Merging
from dinoidd.segment.session import Session
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

LAYOUT = Layout(rows=4, rows_per_chunk=2, rows_per_file=4)
DOWN = OutageError("unreachable", "the store does not answer")


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[], list[str]]:
    """What is logged, with little patience."""
    monkeypatch.setattr("dinoidd.segment.watch.POLL_S", 0.01)
    monkeypatch.setattr("dinoidd.segment.standstill.PATIENCE_S", 0.1)
    monkeypatch.setattr("dinoidd.segment.session.cluster.room", lambda: "the cluster has 2 CPU")
    monkeypatch.setattr(logger, "propagate", True)
    return lambda: caplog.messages


@dataclass
class Merges:
    """In place of the tasks: a store that is out, and a task that nobody gives a place."""

    failing: bool = False
    slow: float = 0.0
    events: list[str] = field(default_factory=list)

    def chunk_done(self, chunk: int) -> None:
        self.events.append(f"chunk {chunk}")

    def check(self, *, wait: bool = False) -> None:
        if self.failing:
            raise DOWN

    def settle(self) -> None:
        time.sleep(self.slow)
        self.events.append("settled")

    def stage(self) -> InStage:
        return InStage(running=int(self.slow > 0), waiting=0, finished=0)


def nothing(*_: object, **__: object) -> None:
    pass


UNUSED: Any = SimpleNamespace(check=nothing, over=nothing)


def session(layout: Layout, output: Any = UNUSED) -> Session:
    record: Any = SimpleNamespace(layout=layout, run_id="run-1", identity={"manifest sha256": ""})
    return Session(
        config=UNUSED,
        output=output,
        record=record,
        placement=UNUSED,
        source=UNUSED,
        image_size=0,
        lock=UNUSED,
    )


def work(merges: Merges, pause: float = 0.0) -> None:
    def chunks() -> Iterator[tuple[int, Tally]]:
        try:
            for chunk in range(LAYOUT.chunks):
                time.sleep(pause)
                yield chunk, Tally(images=2, ok=2)
        finally:
            merges.events.append("pipeline ended")

    metrics = SimpleNamespace(resume=nothing, tick=nothing)
    worked: Any = SimpleNamespace(metrics=metrics, add=nothing, moved=0)
    told: Any = merges
    session(LAYOUT)._work(chunks(), 0, told, worked, UNUSED)  # type: ignore[arg-type]


def test_work__lets_the_pipeline_go_before_it_waits() -> None:
    """The error's traceback would keep it, and with it actors and GPUs."""
    merges = Merges(failing=True)
    with pytest.raises(OutageError) as caught:
        work(merges)
    assert caught.value is DOWN
    assert merges.events == ["chunk 0", "pipeline ended", "settled"]


def test_work__says_that_it_waits_for_a_merge(said: Callable[[], list[str]]) -> None:
    with pytest.raises(OutageError):
        work(Merges(failing=True, slow=0.5))
    assert any(line.startswith("nothing has got through the stage `merge`") for line in said())


def test_work__says_that_nothing_comes_although_no_stage_has_work(
    said: Callable[[], list[str]],
) -> None:
    """The source of the numbers hangs, or Ray's stages are not found."""
    work(Merges(), pause=0.3)
    assert said()[0].endswith(
        "and no stage is known to have work: Ray hands none on; the cluster has 2 CPU"
    )


def test_finish__refuses_files_that_would_double_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "_check_alone", nothing)
    output = Store.open(str(tmp_path))
    output.child(IMAGES).write_bytes("more.parquet", b"PAR1")
    with pytest.raises(OutputError, match=r"images/more\.parquet is none of the run's files"):
        session(LAYOUT, output)._finish(UNUSED)
    assert [p.name for p in tmp_path.iterdir()] == [IMAGES], "it is not marked as finished"


def test_settle__counts_what_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only a merge that does not end is said to stand still."""
    settling: Any = SimpleNamespace(_running=[1, 2, 3], _finished=0)
    seen: list[int] = []

    def wait(running: list[int]) -> tuple[list[int], list[int]]:
        seen.append(settling._finished)
        return running[:1], running[1:]

    monkeypatch.setattr(merging_module.ray, "wait", wait)
    Merging.settle(settling)
    assert seen == [0, 1, 2]
