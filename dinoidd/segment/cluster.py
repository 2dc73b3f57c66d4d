"""The Ray cluster a run uses: an embedded one on a laptop, or the one that is there."""

import os
import re
import socket
import time
from dataclasses import dataclass

import ray

from dinoidd.errors import ClusterError
from dinoidd.log import duration, logger

# Reading and writing tasks are worth a fraction of a core: they wait for the network. The two differ
# so that Ray does not fuse a stage into its neighbour and run them one after the other.
READ_CPUS = 0.5
WRITE_CPUS = 0.25
ACTOR_CPUS = 1.0
# One piece is in the model, and meanwhile another's rows are fetched from the object store or put there.
# (The model itself is never called twice at a time: Ray Data sees to that.)
ACTOR_CALLS = 2
ACCELERATOR = "accelerator_type:"  # Ray's resource on a node with such an accelerator
WAIT_LINE_S = 30  # whole seconds, between log lines while nodes are awaited
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


def connect(address: str | None = None, *, cpus: int | None = None) -> None:
    """Join the cluster of `address` or `RAY_ADDRESS`, or start an embedded one on this machine, which
    has `cpus` logical CPUs (None: those of the machine, at least 4).

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
    cpus = cpus or max(_SMALLEST_EMBEDDED, os.cpu_count() or 1)
    # "local": without an address Ray would join a cluster that somebody else started on this machine
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
    logger.info("started an embedded Ray on this machine (%d logical CPUs)", cpus)


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray would try for minutes. Raises OSError."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d{1,5})", address)
    if match:
        socket.create_connection((match[1], int(match[2])), _ANSWER_SECONDS).close()


def place(actors: int | None, device: str, accelerator_type: str | None = None) -> Placement:
    """Decide where the model runs, from what the cluster has and what its autoscaler may add.

    Args:
        actors: how many; None: one for each GPU there is, or one without a GPU.
        device: "auto", "cuda" or "cpu".
        accelerator_type: of the actors' nodes, as Ray names it, like A100; None: any.

    Raises:
        ClusterError: the cluster can never hold that many actors beside the other stages.
    """
    there, addable = ray.cluster_resources(), growth()
    if accelerator_type is not None:
        check_accelerator(accelerator_type, there, addable, option="--accelerator-type")
        if device == "cpu":
            raise ClusterError(f"--accelerator-type {accelerator_type} goes with --device cuda")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes, addable = _of_type(nodes, accelerator_type), _of_type(addable, accelerator_type)
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if device == "auto":
        device = "cuda" if gpus or any(group.get("GPU", 0) >= 1 for group in addable) else "cpu"
    if actors is None:
        actors = max(1, gpus) if device == "cuda" else 1
    placement = Placement(
        device=device,
        actors=actors,
        threads=1 if device == "cuda" else max(1, _cores() // actors),
        accelerator_type=accelerator_type,
    )
    _check_actors(placement, nodes, there.get("CPU", 0.0), addable)
    return placement


def _of_type(nodes: list[dict[str, float]], accelerator_type: str | None) -> list[dict[str, float]]:
    name = f"{ACCELERATOR}{accelerator_type}"
    return [node for node in nodes if accelerator_type is None or node.get(name)]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_actors(
    placement: Placement,
    nodes: list[dict[str, float]],
    cpus: float,
    addable: list[dict[str, float]],
) -> None:
    """Ray would wait for what is not there, silently and without end."""
    actors, short = placement.actors, []
    if any(_slots(group, placement) for group in addable):
        return
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if placement.device == "cuda" and gpus < actors:
        of_type = f" of type {placement.accelerator_type}" if placement.accelerator_type else ""
        short.append(f"{actors} GPUs{of_type} (it has {gpus})")
    if cpus < (needed := actors * ACTOR_CPUS + READ_CPUS + WRITE_CPUS):
        short.append(f"{needed:g} CPUs (it has {cpus:g})")
    if not short and (slots := sum(_slots(node, placement) for node in nodes)) < actors:
        what = "a GPU and a CPU" if placement.num_gpus else "a whole CPU"
        short.append(f"{what} each on one node (its nodes have room for {slots})")
    if short:
        raise ClusterError(
            f"{actors} model actors need {' and '.join(short)}, so the run would wait for ever: "
            "lower --actors, choose --device cpu, or add nodes"
        )


def _slots(node: dict[str, float], placement: Placement) -> int:
    """How many model actors a node holds."""
    cpus = int(node.get("CPU", 0) / ACTOR_CPUS)
    return min(cpus, int(node.get("GPU", 0))) if placement.num_gpus else cpus


def check_accelerator(
    wanted: str, there: dict[str, float], addable: list[dict[str, float]], *, option: str
) -> None:
    """Refuse to wait for a kind of accelerator that never comes.

    Args:
        wanted: as Ray names it, like A100.
        there: the resources of the cluster; `addable`: see `growth`.
        option: which the user gave it by.

    Raises:
        ClusterError: no node has it, nor may the autoscaler add one.
    """
    name = ACCELERATOR + wanted
    if there.get(name) or any(group.get(name) for group in addable):
        return
    has = sorted(key.removeprefix(ACCELERATOR) for key in there if key.startswith(ACCELERATOR))
    what = f"it has {', '.join(has)}" if has else "it has no accelerator"
    if addable:
        what += (
            f", and no group that the autoscaler may add names it (a group does by the resource "
            f"'{name}' in its configuration)"
        )
    raise ClusterError(
        f"no node of the cluster has an accelerator of type '{wanted}': {what}. Set "
        f"{option} to one that is there, leave it out, or add such a node"
    )


def wait_for_place(placement: Placement) -> None:
    """Wait until one model actor has a place, and say what is awaited; the others come as they can.

    The waiting asks an autoscaler for a node, where there is one.
    """
    bundle = {"CPU": ACTOR_CPUS}
    if placement.num_gpus:
        bundle["GPU"] = float(placement.num_gpus)
    if placement.accelerator_type is not None:
        bundle[ACCELERATOR + placement.accelerator_type] = 0.001
    group = ray.util.placement_group([bundle])
    started = time.monotonic()
    try:
        while not group.wait(WAIT_LINE_S):
            logger.info(
                f"waiting for {_shown(bundle)} on one node, for "
                f"{duration(time.monotonic() - started)} so far; {room()}"
            )
    finally:
        ray.util.remove_placement_group(group)


def room() -> str:
    """What the cluster has, and what is free of it."""
    there, free = ray.cluster_resources(), ray.available_resources()
    return f"the cluster has {_shown(there)}, free are {_shown(free)}"


def _shown(resources: dict[str, float]) -> str:
    """`4 CPU, 1 GPU, A100`."""
    counts = [f"{resources.get(n, 0):g} {n}" for n in ("CPU", "GPU") if n in resources]
    kinds = sorted(n.removeprefix(ACCELERATOR) for n in resources if n.startswith(ACCELERATOR))
    return ", ".join(counts + kinds) or "nothing"


def growth() -> list[dict[str, float]]:
    """The resources of each kind of node that an autoscaler may add; none without an autoscaler."""
    from ray._private.state import state  # no public way to ask for the autoscaler's configuration

    config = state.get_cluster_config()
    return [] if config is None else [dict(group.resources) for group in config.node_group_configs]
