"""Who counts: the processes of this machine (a cluster's are in `job.py`)."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool

from dinoidd.data.processes import map_in_processes
from dinoidd.errors import InputError
from dinoidd.evaluation.counting import Counted, Counting
from dinoidd.evaluation.pairing import Pair

Batches = Iterable[list[Pair]]
Runner = Callable[[Counting, Batches], Iterator[Counted]]  # results in the batches' order


def count_here(workers: int | None = None) -> Runner:
    """A runner of that many processes (None: one a CPU core; 1: this process itself)."""

    def run(counting: Counting, batches: Batches) -> Iterator[Counted]:
        try:
            yield from map_in_processes(counting, batches, workers)
        except BrokenProcessPool as error:
            raise InputError(
                "a process that counted was killed (out of memory?): run again with fewer --workers"
            ) from error

    return run
