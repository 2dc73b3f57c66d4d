"""The Ray cluster a run uses: an embedded one on a laptop, or the one that is there."""

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from dinoidd.errors import ClusterError
from dinoidd.log import logger, quieten_ray
from dinoidd.segment.autoscaler import can_add
from dinoidd.segment.native_stderr import without_lines

# Reading and writing tasks are worth a fraction of a core: they wait for the network. The two differ
# so that Ray does not fuse a stage into its neighbour and run them one after the other.
READ_CPUS = 0.5
WRITE_CPUS = 0.25
ACTOR_CPUS = 1.0
# One piece is in the model, and meanwhile another's rows are fetched from the object store or put there.
# (The model itself is never called twice at a time: Ray Data sees to that.)
ACTOR_CALLS = 2
ACCELERATOR = "accelerator_type:"  # Ray's resource on a node with such an accelerator
MOST_ACTORS = 512  # of a pool that grows with the cluster
_ANSWER_SECONDS = 10.0  # to accept a connection
_RAY_GREETING = "Set ray log level from environment"  # to each driver, by `quieten_ray`
_SMALLEST_EMBEDDED = 4  # logical CPUs: below that, stages would wait for each other


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How model actors are placed."""

    device: str  # "cuda" or "cpu"
    actors: int
    threads: int  # of torch, in each actor
    accelerator_type: str | None = None  # of the actors' nodes, like A100
    fixed: bool = True  # nobody asked for so many: they are what there was, and may become more

    @property
    def most(self) -> int:
        """How many actors there may be, when nodes join later.

        Ray Data asks an autoscaler for GPUs of any kind, so where one kind is wanted it shall not ask
        for more: others would come, be paid for, and idle.
        """
        grows = self.num_gpus and not self.fixed and self.accelerator_type is None
        return max(self.actors, MOST_ACTORS) if grows else self.actors

    @property
    def bundle(self) -> dict[str, float]:
        """What one actor needs on one node, in Ray's words."""
        return _bundle(bool(self.num_gpus), self.accelerator_type)

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
    quieten_ray()
    options = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    where = address or os.environ.get("RAY_ADDRESS")
    if where:
        if where.startswith(("http://", "https://")):
            raise ClusterError(
                f"{where} is a cluster's dashboard, which takes jobs: `dinoidd jobs submit ...` sends "
                "this command there. To run it from here, unset RAY_ADDRESS, or set it to the head's "
                "HOST:6379"
            )
        with without_lines(_RAY_GREETING):
            _join(where, address=address, **options)
        return
    # RAY_AUTH_MODE is left alone: a new local Ray then asks for the token in ~/.ray/auth_token, which
    # matters since its ports are open to the network.
    # Ray's workers run at niceness 15, so anything else on a laptop would starve the job.
    os.environ.setdefault("RAY_worker_niceness", "0")
    cpus = cpus or max(_SMALLEST_EMBEDDED, os.cpu_count() or 1)
    # "local": without an address Ray would join a cluster that somebody else started on this machine
    with without_lines(_RAY_GREETING):
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
    logger.info("started an embedded Ray on this machine (%d logical CPUs)", cpus)


def _join(where: str, **options: Any) -> None:
    """Raises ClusterError."""
    try:
        _knock(where)
        ray.init(**options)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {where}: {error}") from error


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
    if accelerator_type is not None and device == "cpu":
        raise ClusterError(f"--accelerator-type {accelerator_type} goes with --device cuda")
    gpus = count_gpus(nodes_of(accelerator_type))
    if device == "auto":
        device = "cuda" if gpus or accelerator_type or brings_gpus() else "cpu"
    chosen = actors or (max(1, gpus) if device == "cuda" else 1)
    placement = Placement(
        device=device,
        actors=chosen,
        threads=1 if device == "cuda" else max(1, _cores() // chosen),
        accelerator_type=accelerator_type,
        fixed=actors is not None,
    )
    _check_actors(placement)
    return placement


def nodes_of(accelerator_type: str | None) -> list[dict[str, float]]:
    """The resources of each node that is alive, of those with such an accelerator; None: of all."""
    return _of_type([n["Resources"] for n in ray.nodes() if n["Alive"]], accelerator_type)


def free_of(accelerator_type: str | None) -> list[dict[str, float]]:
    """What is free on each of these nodes."""
    return _of_type([*available_resources_per_node().values()], accelerator_type)


def _of_type(nodes: list[dict[str, float]], accelerator_type: str | None) -> list[dict[str, float]]:
    name = f"{ACCELERATOR}{accelerator_type}"
    return [node for node in nodes if accelerator_type is None or node.get(name)]


def count_gpus(nodes: list[dict[str, float]]) -> int:
    """All of these nodes."""
    return int(sum(node.get("GPU", 0) for node in nodes))


def _bundle(gpu: bool, accelerator_type: str | None) -> dict[str, float]:
    bundle = {"CPU": ACTOR_CPUS} | ({"GPU": 1.0} if gpu else {})
    return bundle | ({ACCELERATOR + accelerator_type: 0.001} if accelerator_type else {})


def brings_gpus(*, cuda: str = "--device cuda", cpu: str = "--device cpu") -> bool:
    """Whether an autoscaler adds a GPU to a cluster that has none.

    Args:
        cuda: how the user says that it shall be waited for; `cpu`: that it shall not.

    Raises:
        ClusterError: it does not tell. The device decides the run's dtype too, so nobody guesses.
    """
    comes = can_add([_bundle(True, None)])
    if comes is None:
        raise ClusterError(
            "the cluster has no GPU yet, and its autoscaler does not tell whether it may add one: say "
            f"{cuda} to wait for it, or {cpu}"
        )
    return comes


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_actors(placement: Placement) -> None:
    """Ray would wait for what is not there, silently and without end."""
    nodes = nodes_of(placement.accelerator_type)
    short = short_of(placement, nodes)
    if not short or may_come(placement):
        return
    if placement.accelerator_type is not None and not nodes:
        raise no_such_accelerator(placement.accelerator_type, option="--accelerator-type")
    raise ClusterError(
        f"{placement.actors} model actors need {' and '.join(short)}, so the run would wait for ever: "
        "lower --actors, choose --device cpu, or add nodes"
    )


def may_come(placement: Placement) -> bool:
    """Whether an autoscaler adds what these actors and the other stages lack.

    It is asked for the whole need: what is missing alone would fit on nodes that are idle.
    """
    whole = [placement.bundle] * placement.actors + [{"CPU": READ_CPUS + WRITE_CPUS}]
    if can_add(whole) is not False:
        return True
    # Looked at only now: what this process itself has just let go of is free for all by now.
    later = request_of(placement)
    return later != whole and can_add(later) is not False


def request_of(placement: Placement) -> list[dict[str, float]]:
    """The need without what is busy: other jobs end, but an autoscaler counts what they hold as gone."""
    free = free_of(placement.accelerator_type)
    slots = sum(slots_of(node, placement) for node in nodes_of(placement.accelerator_type))
    idle = [slots_of(node, placement) for node in free]
    request = [placement.bundle] * (placement.actors - max(0, slots - sum(idle)))
    if ray.cluster_resources().get("CPU", 0.0) - slots * ACTOR_CPUS >= READ_CPUS + WRITE_CPUS:
        return request  # the other stages have room beside actors on all places
    # A part of a CPU is idle where another job holds the rest of it: that is no room to stay in.
    parts = [node.get("CPU", 0) - n * ACTOR_CPUS for node, n in zip(free, idle, strict=True)]
    return [*request, *({"CPU": p} for p in parts if p > 0), {"CPU": READ_CPUS + WRITE_CPUS}]


def short_of(placement: Placement, nodes: list[dict[str, float]]) -> list[str]:
    """What the cluster has too little of, all that it has counted, and not only what is free."""
    actors, short = placement.actors, []
    cpus, gpus = ray.cluster_resources().get("CPU", 0.0), count_gpus(nodes)
    if placement.device == "cuda" and gpus < actors:
        of_type = f" of type {placement.accelerator_type}" if placement.accelerator_type else ""
        short.append(f"{actors} GPUs{of_type} (it has {gpus})")
    if cpus < (needed := actors * ACTOR_CPUS + READ_CPUS + WRITE_CPUS):
        short.append(f"{needed:g} CPUs (it has {cpus:g})")
    if not short and (slots := sum(slots_of(node, placement) for node in nodes)) < actors:
        what = "a GPU and a CPU" if placement.num_gpus else "a whole CPU"
        short.append(f"{what} each on one node (its nodes have room for {slots})")
    return short


def slots_of(node: dict[str, float], placement: Placement) -> int:
    """How many model actors a node holds."""
    cpus = int(node.get("CPU", 0) / ACTOR_CPUS)
    return min(cpus, int(node.get("GPU", 0))) if placement.num_gpus else cpus


def no_such_accelerator(wanted: str, *, option: str) -> ClusterError:
    """That a kind of accelerator never comes.

    Args:
        wanted: as Ray names it, like A100.
        option: which the user gave it by.
    """
    names = {key for node in nodes_of(None) for key in node if key.startswith(ACCELERATOR)}
    has = sorted(name.removeprefix(ACCELERATOR) for name in names)
    return ClusterError(
        f"no node of the cluster has an accelerator of type '{wanted}', and no autoscaler adds one: "
        f"it has {', '.join(has) or 'no accelerator'}. Set {option} to one that is there, leave it out, "
        f"or add such a node (an autoscaler's group names it by the resource '{ACCELERATOR}{wanted}')"
    )


def room() -> str:
    """What the cluster has, and what is free of it."""
    there, free = ray.cluster_resources(), ray.available_resources()
    return f"the cluster has {shown(there)}, free are {shown(free)}"


def shown(resources: dict[str, float]) -> str:
    """`4 CPU, 1 GPU, A100`."""
    counts = [f"{resources.get(n, 0):g} {n}" for n in ("CPU", "GPU") if n in resources]
    kinds = sorted(n.removeprefix(ACCELERATOR) for n in resources if n.startswith(ACCELERATOR))
    return ", ".join(counts + kinds) or "nothing"
