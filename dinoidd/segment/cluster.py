"""The Ray cluster a run uses: an embedded one on a laptop, or the one that is there."""

import os
import re
import socket
from dataclasses import dataclass

import ray

from dinoidd.errors import ClusterError
from dinoidd.log import logger

# Reading and writing tasks are worth a fraction of a core: they wait for the network. The two differ
# so that Ray does not fuse a stage into its neighbour and run them one after the other.
READ_CPUS = 0.5
WRITE_CPUS = 0.25
ACTOR_CPUS = 1.0
_ANSWER_SECONDS = 10.0  # to accept a connection
_SMALLEST_EMBEDDED = 4  # logical CPUs: below that, stages would wait for each other


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How model actors are placed."""

    device: str  # "cuda" or "cpu"
    actors: int
    threads: int  # of torch, in each actor
    accelerator_type: str | None = None  # of the actors' nodes, like A100

    @property
    def num_gpus(self) -> int:
        return 1 if self.device == "cuda" else 0

    @property
    def remote_args(self) -> dict[str, str]:
        """What Ray is told of the node, beside CPUs and GPUs."""
        return {} if self.accelerator_type is None else {"accelerator_type": self.accelerator_type}

    @property
    def best_dtype(self) -> str:
        return "bfloat16" if self.device == "cuda" else "float32"


def connect(address: str | None = None) -> None:
    """Join the cluster of `address` or `RAY_ADDRESS`, or start an embedded one on this machine.

    A process that is connected to a cluster stays there.

    Raises:
        ClusterError: the address does not answer.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    where = address or os.environ.get("RAY_ADDRESS")
    if where:
        try:
            _knock(where)
            ray.init(address=address, **options)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise ClusterError(f"no Ray cluster answers at {where}: {error}") from error
        return
    # RAY_AUTH_MODE is left alone: a new local Ray then asks for the token in ~/.ray/auth_token, which
    # matters since its ports are open to the network.
    # Ray's workers run at niceness 15, so anything else on a laptop would starve the job.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray Data's actors make the core print an error of its own at every start (ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    cpus = max(_SMALLEST_EMBEDDED, os.cpu_count() or 1)
    ray.init(num_cpus=cpus, include_dashboard=False, **options)
    logger.info("started an embedded Ray on this machine (%d logical CPUs)", cpus)


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray would try for minutes. Raises OSError."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d{1,5})", address)
    if match:
        socket.create_connection((match[1], int(match[2])), _ANSWER_SECONDS).close()


def place(actors: int | None, device: str) -> Placement:
    """Decide where the model runs, from what the cluster has.

    Args:
        actors: how many; None: one for each GPU there is, or one without a GPU.
        device: "auto", "cuda" or "cpu".

    Raises:
        ClusterError: the cluster can never hold that many actors beside the other stages.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 0.0)
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if actors is None:
        actors = max(1, gpus) if device == "cuda" else 1
    short = []
    if device == "cuda" and gpus < actors:
        short.append(f"{actors} GPUs (it has {gpus})")
    if cpus < (needed := actors * ACTOR_CPUS + READ_CPUS + WRITE_CPUS):
        short.append(f"{needed:g} CPUs (it has {cpus:g})")
    if short and not growth():
        raise ClusterError(
            f"{actors} model actors need {' and '.join(short)}, so the run would wait for ever: "
            "lower --actors, choose --device cpu, or add nodes"
        )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    per_actor = 1 if device == "cuda" else max(1, cores // actors)
    return Placement(device=device, actors=actors, threads=per_actor)


def growth() -> list[dict[str, float]]:
    """The resources of each kind of node that an autoscaler may add; none without an autoscaler."""
    from ray._private.state import state  # no public way to ask for the autoscaler's configuration

    config = state.get_cluster_config()
    return [] if config is None else [dict(group.resources) for group in config.node_group_configs]
