"""Waiting for nodes, said aloud and with an end."""

import time
from dataclasses import replace

import ray

from dinoidd.errors import ClusterError
from dinoidd.log import duration, logger
from dinoidd.segment.cluster import Placement, count_gpus, nodes_of, room, short_of, shown, slots_of

WAIT_LINE_S = 30.0  # between log lines while nodes are awaited
_LOOK_S = 5  # whole seconds; Python hears no signal meanwhile, and the head remembers each look
NODE_PATIENCE_S = 1800.0  # for a node that an autoscaler has to bring; a scarce one takes a while


def wait_for_place(placement: Placement, actors: int = 1) -> Placement:
    """Wait until so many model actors have a place, and say what is awaited; the others come as they
    can. The waiting asks an autoscaler for nodes, where there is one.

    Returns:
        The placement, with an actor for each GPU that came where nobody asked for a number, as far as
        reading and writing have room beside them.

    Raises:
        ClusterError: an autoscaler was to bring a node, and has not.
    """
    group = ray.util.placement_group([placement.bundle] * actors)
    started = told = time.monotonic()
    try:
        while not group.wait(_LOOK_S):
            now = time.monotonic()
            if now - told >= WAIT_LINE_S:
                told = now
                _tell_waiting(placement, actors, now - started)
    finally:
        ray.util.remove_placement_group(group)
    return placement if placement.fixed else _grown(placement, actors)


def _grown(placement: Placement, least: int) -> Placement:
    """What came may have too few CPUs for its GPUs: actors on all would starve the other stages."""
    nodes = nodes_of(placement.accelerator_type)
    gpus = count_gpus(nodes) if placement.num_gpus else 0
    grown = replace(placement, actors=max(gpus, placement.actors))
    while grown.actors > least and short_of(grown, nodes):
        grown = replace(grown, actors=grown.actors - 1)
    return grown


def _tell_waiting(placement: Placement, actors: int, seconds: float) -> None:
    """Whoever is in the way may take days; a node that is bought takes minutes, or never comes."""
    slots = sum(slots_of(node, placement) for node in nodes_of(placement.accelerator_type))
    times = f"{actors} times " if actors > 1 else ""
    what, limit = f"{times}{shown(placement.bundle)} on one node", ""
    if slots < actors:
        limit = f" of {duration(NODE_PATIENCE_S)}"
        if seconds >= NODE_PATIENCE_S:
            raise ClusterError(
                f"no autoscaler has brought {what} within {duration(NODE_PATIENCE_S)}; {room()}. "
                "`ray status` says what it tried. What is done is kept: run the same command again"
            )
    logger.info(f"waiting for {what}, for {duration(seconds)}{limit} so far; {room()}")
