"""Where a training run's workers and model actors go, or one sentence why they cannot."""

from dataclasses import dataclass, replace

import ray

from dinoidd.data.processes import cores
from dinoidd.errors import ClusterError
from dinoidd.segment import cluster
from dinoidd.segment.cluster import ACTOR_CPUS, READ_CPUS, WRITE_CPUS, count_gpus, nodes_of
from dinoidd.segment.waiting import wait_for_place
from dinoidd.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many processes hold a model, and on what."""

    workers: int  # that train
    actors: int  # that run the frozen network for a cache
    use_gpu: bool
    accelerator_type: str | None
    threads: int  # of torch, in each of them

    @property
    def device(self) -> str:
        return "cuda" if self.use_gpu else "cpu"

    @property
    def precision(self) -> str:
        """What `precision: auto` stands for."""
        return "bfloat16" if self.use_gpu else "float32"

    @property
    def backend(self) -> str:
        """Of torch.distributed."""
        return "nccl" if self.use_gpu else "gloo"

    def models(self) -> cluster.Placement:
        """Of the actors that run the frozen network."""
        return cluster.Placement(
            device=self.device,
            actors=self.actors,
            threads=self.threads,
            accelerator_type=self.accelerator_type,
            fixed=not self.use_gpu,
        )

    def waited(self) -> "Placement":
        """With a place for each worker, waited for; and with an actor for each GPU that came.

        Raises:
            ClusterError: an autoscaler was to bring nodes, and has not.
        """
        return replace(self, actors=wait_for_place(self.models(), self.workers).actors)


def place(config: TrainConfig) -> Placement:
    """Decide where a run's processes go. To be called when Ray is connected.

    Raises:
        ClusterError: neither the cluster as it is nor what its autoscaler may add can hold them.
    """
    wanted = config.accelerator_type
    nodes = nodes_of(wanted)
    gpus = count_gpus(nodes)
    use_gpu = config.use_gpu
    if use_gpu is None:
        use_gpu = bool(
            wanted is not None
            or gpus
            or cluster.brings_gpus(cuda="use_gpu=true", cpu="use_gpu=false")
        )
    placement = Placement(
        workers=config.workers,
        actors=max(config.workers, gpus) if use_gpu else 1,
        use_gpu=use_gpu,
        accelerator_type=wanted,
        threads=1 if use_gpu else max(1, cores() // config.workers),
    )
    _check_workers(placement, nodes)
    return placement


def _check_workers(placement: Placement, nodes: list[dict[str, float]]) -> None:
    """Ray would wait for what is not there, silently and without end."""
    workers, wanted = placement.workers, placement.accelerator_type
    cpus = ray.cluster_resources().get("CPU", 0.0)
    needed = workers * ACTOR_CPUS + READ_CPUS + WRITE_CPUS
    gpus = count_gpus(nodes)
    lacks_gpus = placement.use_gpu and gpus < workers
    lacks_kind = wanted is not None and not nodes
    if not lacks_gpus and not lacks_kind and cpus >= needed:
        return
    if cluster.may_come(replace(placement.models(), actors=workers)):
        return
    if wanted is not None and lacks_kind:
        raise cluster.no_such_accelerator(wanted, option="accelerator_type")
    if lacks_gpus:
        of_type = f" of type {wanted}" if wanted else ""
        raise ClusterError(
            f"{workers} workers need a GPU{of_type} each, and the cluster has {gpus}: set workers="
            f"{max(gpus, 1)}{'' if gpus else ' and use_gpu=false'}, or add nodes"
        )
    raise ClusterError(
        f"{workers} workers and their reading tasks need {needed:g} CPUs, and the cluster has "
        f"{cpus:g}: set a smaller workers, or add nodes"
    )
