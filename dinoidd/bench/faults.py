"""Does a run lose or double an image when its processes are killed? Kills many of them, and counts."""

import io
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dinoidd.bench.fault_cluster import FaultCluster, kill, temporary_file_of
from dinoidd.bench.fault_driver import ROWS_PER_CHUNK, ROWS_PER_FILE
from dinoidd.errors import ConfigError
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import duration, logger
from dinoidd.output.reader import RunReader
from dinoidd.output.verify import verify
from dinoidd.storage import DEFAULT_OPTIONS, Store
from dinoidd.storage.uri import scheme_of

# What is killed, over and over in a drawn order. `writing` is a task that has a half written file open.
KINDS = ("actor", "task", "writing", "actor", "task", "node", "writing", "driver")
_TITLES = {
    "actor": ("ray::MapWorker(MapBatches(SegmentImages))",),
    "task": ("ray::MapBatches(read", "ray::MapBatches(wr", "ray::merge_file"),
    "writing": ("ray::MapBatches(wr", "ray::merge_file"),
}
_WORKER, _ACTOR = "ray::", "ray::MapWorker"
_PIECES_PER_KILL = 8  # so that a run goes on between kills
_AIM_S = 8.0
_AIM_AGAIN_S = 1.0  # until processes are looked up anew
_FAILURES = 3  # sessions of a run that may fail, until it is given up
_LINES = 30
_STUCK_S = 240.0  # without a finished piece of work: a restarted actor needs a tenth of that


@dataclass(frozen=True, kw_only=True)
class FaultConfig:
    """How much is killed, and of what."""

    kills: int = 20
    images: int = 2_000
    seed: int = 0
    nodes: int = 3
    milliseconds: float = 20.0  # of the stand-in model, an image

    def __post_init__(self) -> None:
        least = 2 * _PIECES_PER_KILL * ROWS_PER_CHUNK
        if self.kills < 1 or self.nodes < 1:
            raise ConfigError(f"--kills {self.kills}, --nodes {self.nodes}: at least 1 is needed")
        if self.images < least:
            raise ConfigError(f"--images {self.images}: at least {least} are needed")


@dataclass(kw_only=True)
class FaultReport:
    """What became of it all."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)  # by kind
    writing: int = 0  # of them, that left a half written file behind
    runs: int = 0  # outputs
    sessions: int = 0
    images: int = 0
    lost: int = 0  # images without a row
    doubled: int = 0  # images with several
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.problems

    def so_far(self) -> str:
        return (
            f"seed {self.seed}, {self.kills.total()} kills, of {self.runs} runs the rows are proven"
        )

    def to_dict(self) -> dict[str, object]:
        rate = self.images / max(self.seconds, 1e-9)
        return asdict(self) | {"images_per_second": rate, "whole": self.whole}


def measure_faults(config: FaultConfig, folder: str, where: str | None = None) -> FaultReport:
    """Run the job over generated images, again and again, until so many kills have been dealt.

    Args:
        folder: for logs.
        where: input and outputs lie, like s3://BUCKET/PREFIX, with credentials and endpoint in the
            environment; None: in `folder`.

    Raises:
        ClusterError: the local cluster does not start.
    """
    logger.info(f"seed {config.seed}: {config.kills} kills over {config.images:,} images")
    place = Store.open(where or folder)
    source = _write_images(place.child("in"), config.images, config.seed)
    report = FaultReport(seed=config.seed)
    drawn = random.Random(config.seed)
    kinds = [kind for _ in range(-(-config.kills // len(KINDS))) for kind in KINDS]
    left = drawn.sample(kinds, len(kinds))[: config.kills]
    with terminated_as_interrupted(report.so_far), FaultCluster(config.nodes) as cluster:
        while left and report.whole:
            name = f"out{report.runs}"
            log = Path(folder) / f"{name}.log"
            run = _Run(config, cluster, source, place.child(name), log, report, drawn)
            left = run.work(left)
            report.runs += 1
    return report


def _write_images(folder: Store, images: int, seed: int) -> str:
    """Small PNGs that differ; quick to make, read and write."""
    values = np.random.default_rng(seed)
    for i in range(images):
        png, pixels = io.BytesIO(), values.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 30)).save(png, "PNG")
        folder.write_bytes(f"{i:06d}.png", png.getvalue())
    return folder.uri


class _Run:
    """One output, from its first session to its proof."""

    def __init__(
        self,
        config: FaultConfig,
        cluster: FaultCluster,
        source: str,
        output: Store,
        log: Path,
        report: FaultReport,
        drawn: random.Random,
    ) -> None:
        self._config, self._cluster, self._report, self._drawn = config, cluster, report, drawn
        self._source, self._output = source, output
        self._pieces = -(-config.images // ROWS_PER_CHUNK)
        self._log = log
        self._is_local = scheme_of(output.uri) == "file"
        self._started = time.monotonic()
        self._failed = 0  # sessions that ended by themselves

    def work(self, kinds: list[str]) -> list[str]:
        """Deal as many of the kills as the run has room for; those that are left are returned."""
        count = min(len(kinds), self._pieces // _PIECES_PER_KILL)
        moments = sorted(self._drawn.sample(range(1, self._pieces - 1), count))
        todo = list(zip(moments, kinds, strict=False))
        self._start()
        while not self._ended():
            if todo and self.done() >= todo[0][0]:
                time.sleep(self._drawn.uniform(0.0, 0.3))
                if self._strike(todo[0][1]):
                    todo.pop(0)
            time.sleep(0.02 if self._is_local else 0.3)
        self._report.seconds += time.monotonic() - self._started
        self._prove()
        return [kind for _, kind in todo] + kinds[count:]

    def _start(self) -> None:
        address, milliseconds = self._cluster.address, self._config.milliseconds
        arguments = [self._source, self._output.uri, address, milliseconds]
        command = [sys.executable, "-m", "dinoidd.bench.fault_driver", *map(str, arguments)]
        self._driver = self._cluster.start(command, "driver", self._log)
        self._report.sessions += 1
        self._seen, self._seen_at = -1, time.monotonic()

    def _ended(self) -> bool:
        """Whether the run is over: done, given up, or stuck."""
        status = self._driver.poll()
        if status is not None:
            return status == 0 or self._gave_up(status)
        if (done := self.done()) != self._seen:
            self._seen, self._seen_at = done, time.monotonic()
        if time.monotonic() - self._seen_at > _STUCK_S:
            self._trouble(f"stuck for {_STUCK_S:.0f} s at {done} of {self._pieces} pieces")
            kill(self._driver.pid)
            self._driver.wait()
            return True
        return False

    def _gave_up(self, status: int) -> bool:
        """A session that nobody killed has failed, which no kill may bring about; what it did has to be
        whole all the same. Whether that is enough of them."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = [line for line in lines if "(raylet)" not in line][-_LINES:] or ["nothing"]
        logger.info("the driver's last lines:\n%s", "\n".join(said))
        self._trouble(f"a session ended by itself, status {status}: {said[-1]}")
        self._failed += 1
        if self._failed < _FAILURES:
            self._start()
        return self._failed == _FAILURES

    def done(self) -> int:
        """Pieces of work whose rows are written."""
        names = self._names()
        staged = sum(name.startswith("chunk-") for name in names)
        files = sum(name.startswith("part-") for name in names)
        return staged + files * (ROWS_PER_FILE // ROWS_PER_CHUNK)

    def _names(self) -> list[str]:
        """Of the files of rows; some of a local folder may vanish meanwhile, which a listing minds."""
        if not self._is_local:
            return [entry.uri.rpartition("/")[2] for entry in self._output.walk()]
        folder = Path(self._output.uri)
        return [
            p.name for glob in ("_staging/*/chunk-*", "images/part-*") for p in folder.glob(glob)
        ]

    def _strike(self, kind: str) -> bool:
        """Kill one of the kind; False where there is none at this moment."""
        if kind == "node":
            what = self._strike_node()
        elif kind == "driver":
            what = self._strike_driver()
        else:
            what = self._strike_worker(kind)
        if not what:
            return False
        self._report.kills[kind] += 1
        logger.info(
            f"kill {self._report.kills.total()} of {self._config.kills}: {what}, at {self.done()} of "
            f"{self._pieces} pieces"
        )
        return True

    def _strike_worker(self, kind: str) -> str:
        """Where nobody is caught writing, one that is about to is killed all the same."""
        aimed = kind == "writing" and self._is_local  # an upload leaves no file to be seen
        caught = self._caught_writing() if aimed else None
        found = [p for title in _TITLES[kind] for p in self._cluster.processes(title)]
        process = caught[0] if caught else self._drawn.choice(sorted(found) or [0])
        if not process or not kill(process):
            return ""
        half = caught is not None and caught[1].exists()  # it never got its name
        self._report.writing += half
        return f"{kind} (process {process}{', a file is half written' if half else ''})"

    def _strike_driver(self) -> str:
        if self._driver.poll() is not None:
            return ""
        kill(self._driver.pid)
        self._driver.wait()
        self._start()
        return f"driver (process {self._driver.pid} goes on)"

    def _strike_node(self) -> str:
        name = self._drawn.choice(self._cluster.node_names())
        killed = self._cluster.kill_node(name)
        self._cluster.add_node()
        return f"{name} ({killed} processes), another is there"

    def _caught_writing(self) -> tuple[int, Path] | None:
        """A process that has a temporary file of the output open, and that file: they last a moment."""
        until, looked_up, workers = time.monotonic() + _AIM_S, -_AIM_AGAIN_S, list[int]()
        while (now := time.monotonic()) < until and self._driver.poll() is None:
            if now - looked_up >= _AIM_AGAIN_S:
                actors = self._cluster.processes(_ACTOR)  # which write nothing
                workers = sorted({*self._cluster.processes(_WORKER)} - {*actors})
                looked_up = time.monotonic()
            for process in workers:
                file = temporary_file_of(process)
                if file is not None and file.is_relative_to(self._output.uri):
                    return process, file
        return None

    def _prove(self) -> None:
        if not self._output.exists("manifest/manifest.json"):
            return self._trouble("there is no manifest")
        proof = verify(RunReader(self._output.uri, DEFAULT_OPTIONS), sample=None)
        self._report.images += proof.rows
        self._report.lost += proof.findings.counts.get("image without a row", 0)
        self._report.doubled += proof.findings.counts.get("image with several rows", 0)
        for sentence in proof.findings.sentences():
            self._trouble(sentence)
        if proof.ok != self._config.images:
            kinds = dict(proof.errors)
            self._trouble(f"{proof.ok:,} of {self._config.images:,} rows are ok; errors {kinds}")
        took = duration(time.monotonic() - self._started)
        logger.info(f"{proof.rows:,} rows, {proof.ok:,} ok, {proof.masks:,} masks, {took}")

    def _trouble(self, sentence: str) -> None:
        logger.warning(sentence)
        self._report.problems.append(sentence)


def format_faults(report: FaultReport) -> str:
    """The same as lines of text."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(report.kills.items()))
    rate = report.images / max(report.seconds, 1e-9)
    exit_ = f"exit status {int(not report.whole)}"
    lines = [
        f"seed      {report.seed}",
        f"kills     {report.kills.total()} ({kinds}; {report.writing} left a half written file)",
        f"runs      {report.runs}, in {report.sessions} sessions",
        f"rows      {report.images:,} in {duration(report.seconds)} ({rate:.1f} images/s): "
        f"{report.lost:,} lost, {report.doubled:,} double",
        "verdict   " + (f"every row ok, {exit_}" if report.whole else f"FAILED, {exit_}"),
    ]
    return "\n".join([*lines, *(f"- {problem}" for problem in report.problems)])
