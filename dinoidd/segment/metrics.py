"""A run's metrics for Prometheus, through Ray: each node serves them with Ray's own.

Counts come from the driver alone. It learns of each piece once, when its rows are written, while
workers would count a piece twice that Ray does twice, and each leave a time series behind. What only
an actor knows (its wait, its batches, its GPU) it tells itself. Ray puts `ray_` before each name and
`_total` behind a counter's.
"""

import time
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from dinoidd.segment.flow import STAGES, InStage
from dinoidd.segment.tally import Tally

_WAIT_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
# Ray hands an observation on as the middle of its bucket, so each usual batch is the middle of its own.
_EACH = [images + 0.5 for images in range(17)]
_SOME = [images + half for images in (20, 24, 32, 48, 64, 96, 128) for half in (-0.5, 0.5)]
_BATCH = [*_EACH, *_SOME]


class RunMetrics:
    """The driver's, of one session of work.

    Args:
        rows: of the whole run.
        gpus: that the session's actors hold from the start.
        gpu_hours: of the sessions before.
    """

    def __init__(self, *, rows: int, gpus: int = 0, gpu_hours: float = 0.0) -> None:
        self._images = Counter("dinoidd_images", "Images that have their row", ("status",))
        self._errors = Counter("dinoidd_errors", "Error rows", ("kind",))
        self._read = Counter("dinoidd_read_bytes", "Bytes of images, downloaded")
        written = "Bytes of rows, written; complete files are copied once more"
        self._written = Counter("dinoidd_written_bytes", written)
        work = "Seconds of work, summed over threads and processes"
        self._seconds = Counter("dinoidd_stage_seconds", work, ("stage",))
        self._rows = Gauge("dinoidd_rows", "Images of the run")
        self._rows_done = Gauge("dinoidd_rows_done", "Images of the run that have their row")
        in_stage = "Pieces of work in a stage, those that wait in an actor included"
        self._running = Gauge("dinoidd_chunks_running", in_stage, ("stage",))
        hours = "GPU hours of the model actors, from the run's first session on"
        self._gpu_hours = Gauge("dinoidd_gpu_hours", hours)
        self._gpus = gpus
        self.gpu_hours = gpu_hours  # of all sessions
        self.most_gpus = gpus  # of this session, at a time
        self._looked = time.monotonic()
        self._of, self._done = rows, 0

    def resume(self, rows_done: int) -> None:
        """The work begins, or goes on after an outage: so many images have their row, the files say."""
        self._done = rows_done
        self._looked = time.monotonic()  # no actor held a GPU in an outage
        self._show()

    def add(self, tally: Tally) -> None:
        """A piece of work is done."""
        self._done += tally.images
        self._show()
        _count(self._images, tally.ok, status="ok")
        _count(self._images, tally.failed, status="error")
        for kind, errors in tally.errors.items():
            _count(self._errors, errors, kind=kind)
        _count(self._read, tally.bytes_read)
        _count(self._written, tally.bytes_written)
        for stage, seconds in tally.seconds.items():
            _count(self._seconds, seconds, stage=stage)

    def tick(self, stages: Mapping[str, InStage]) -> None:
        """Time has passed; `stages` may be empty. Ray forgets a gauge that is not set for a while."""
        self._show()
        for stage in STAGES:
            self._running.set(stages[stage].running if stage in stages else 0, {"stage": stage})
        self._count_gpus(stages["model"].actors if self._gpus and "model" in stages else 0)
        self._gpu_hours.set(self.gpu_hours)

    def _count_gpus(self, actors: int) -> None:
        """The pool grows with the cluster, and shrinks to what it began with."""
        now, gpus = time.monotonic(), max(self._gpus, actors)
        self.most_gpus = max(self.most_gpus, gpus)
        self.gpu_hours += gpus * (now - self._looked) / 3600
        self._looked = now

    def _show(self) -> None:
        self._rows.set(self._of)
        self._rows_done.set(self._done)


class ModelMetrics:
    """A model actor's. Pickled, it is made anew where it arrives."""

    def __init__(self) -> None:
        wait = "Seconds that a model actor waited for its next piece of work"
        self._wait = Histogram("dinoidd_queue_wait_seconds", wait, _WAIT_S)
        self._batch = Histogram("dinoidd_batch_images", "Images a forward", _BATCH)
        memory = "Peak of GPU memory that a model actor's process reserved"
        self._memory = Gauge("dinoidd_gpu_memory_bytes", memory)

    def waited(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def forwarded(self, images: int) -> None:
        self._batch.observe(images)

    def took_memory(self, gpu_bytes: int) -> None:
        self._memory.set(gpu_bytes)


def _count(counter: Counter, value: float, **tags: str) -> None:
    """Ray counts no nothing."""
    if value > 0:
        counter.inc(float(value), tags)
