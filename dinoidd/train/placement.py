"""Where a training run's workers and model actors go, or one sentence why they cannot."""

from dataclasses import dataclass

import ray

from dinoidd.data.processes import cores
from dinoidd.errors import ClusterError
from dinoidd.segment.cluster import (
    ACTOR_CPUS,
    READ_CPUS,
    WRITE_CPUS,
    check_accelerator,
    growth,
)
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


def place(config: TrainConfig) -> Placement:
    """Decide where a run's processes go. To be called when Ray is connected.

    Raises:
        ClusterError: neither the cluster as it is nor what its autoscaler may add can hold them.
    """
    there = ray.cluster_resources()
    gpus, wanted = int(there.get("GPU", 0)), config.accelerator_type
    addable = growth()
    may_add_gpus = any(group.get("GPU", 0) >= 1 for group in addable)
    use_gpu = config.use_gpu
    if use_gpu is None:
        use_gpu = wanted is not None or gpus > 0 or may_add_gpus
    if wanted is not None:
        check_accelerator(wanted, there, addable, option="accelerator_type")
    if use_gpu and gpus < config.workers and not may_add_gpus:
        raise ClusterError(
            f"{config.workers} workers need a GPU each, and the cluster has {gpus}: set workers="
            f"{max(gpus, 1)}{'' if gpus else ' and use_gpu=false'}, or add nodes"
        )
    _check_cpus(config.workers, there.get("CPU", 0.0), bool(addable))
    # GPUs beside the wanted kind are not ours to take
    actors = max(config.workers, gpus) if use_gpu and wanted is None else config.workers
    return Placement(
        workers=config.workers,
        actors=actors if use_gpu else 1,
        use_gpu=use_gpu,
        accelerator_type=wanted,
        threads=1 if use_gpu else max(1, cores() // config.workers),
    )


def _check_cpus(workers: int, cpus: float, grows: bool) -> None:
    """A worker holds a core for itself; reading and writing need some beside it."""
    needed = workers * ACTOR_CPUS + READ_CPUS + WRITE_CPUS
    if cpus < needed and not grows:
        raise ClusterError(
            f"{workers} workers and their reading tasks need {needed:g} CPUs, and the cluster has "
            f"{cpus:g}: set a smaller workers, or add nodes"
        )
