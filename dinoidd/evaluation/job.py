"""Counting as tasks of a Ray cluster; the only module of the evaluation that knows Ray."""

from collections import deque
from collections.abc import Iterator

import ray

from dinoidd.errors import ClusterError
from dinoidd.evaluation.counting import Counted, Counting
from dinoidd.evaluation.pairing import Pair
from dinoidd.evaluation.runner import Batches, Runner
from dinoidd.segment.cluster import connect
from dinoidd.segment.pipeline import user_error

_AHEAD = 3  # batches a slot that wait or are done


def count_on_cluster(address: str | None = None, *, gpu: bool = False) -> Runner:
    """A runner of one task a batch on all CPUs (`gpu`: on all GPUs) of a cluster.

    Raises:
        ClusterError: the address does not answer, or the cluster has no such processor.
    """
    connect(address)
    resource = "GPU" if gpu else "CPU"
    slots = int(ray.cluster_resources().get(resource, 0))
    if not slots:
        raise ClusterError(f"the cluster has no {resource}: choose another --device, or add nodes")
    # A batch whose worker was killed is counted again; it has returned nothing before.
    task = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=3)(_count)

    def run(counting: Counting, batches: Batches) -> Iterator[Counted]:
        shared = ray.put(counting)
        waiting: deque[ray.ObjectRef] = deque()
        try:
            for batch in batches:
                waiting.append(task.remote(shared, batch))
                if len(waiting) >= _AHEAD * slots:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())
        except ray.exceptions.RayError as error:
            raise user_error(error) from error

    return run


def _count(counting: Counting, pairs: list[Pair]) -> Counted:
    return counting(pairs)
