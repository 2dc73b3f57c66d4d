"""What a run needs beside processors, looked at before any model is loaded: room, and paths that
every node sees."""

import os
import shutil
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER, ManifestInfo, read_rows
from dinoidd.errors import ClusterError, OutputError
from dinoidd.inference.windows import Framing
from dinoidd.log import logger
from dinoidd.segment.cluster import ACTOR_CALLS, Placement
from dinoidd.segment.layout import Layout
from dinoidd.segment.summary import size_text
from dinoidd.storage import Store
from dinoidd.storage.uri import scheme_of

MASK_BYTES = 32_000  # a row of a 1080p street image, as measured
MASK_SIZE = (1080, 1920)  # of such an image
_CLASSES_BYTES = 200_000  # of its classes on their way, see `pack_classes`
_ANSWER_S = 60.0  # for a node to start a worker and look
_PROBE = ".dinoidd-node-check"


def check_room(
    config: SegmentConfig,
    output: Store,
    layout: Layout,
    manifest: ManifestInfo,
    placement: Placement,
    image_size: int,
) -> None:
    """Refuse what can never go well. To be called when Ray is connected.

    Args:
        image_size: pixels of the model's square.

    Raises:
        ClusterError: a node has too small an object store, or does not see a local path.
        OutputError: the disk of a local output is too small.
    """
    _check_object_store(layout, placement, Framing(image_size=image_size, windows=config.windows))
    if _is_local(output.uri):
        _check_disk(output, layout, manifest)
    _check_nodes(config, output)


def _check_object_store(layout: Layout, placement: Placement, framing: Framing) -> None:
    """Pieces of work travel through the object store; one that does not fit goes by way of a disk.

    How large images are is known later. It matters to windows alone: squares are all alike, and classes
    travel packed.
    """
    rows = min(layout.rows_per_chunk, layout.rows)
    shapes = framing.shapes(MASK_SIZE)
    images = rows * 3 * sum(height * width for height, width in shapes)
    classes = rows * _CLASSES_BYTES
    stores = [node["Resources"].get("object_store_memory", 0) for node in _workers()]
    smallest = min(stores, default=0)
    at = ", ".join(f"{width}x{height}" for height, width in shapes)
    if smallest < images:
        raise ClusterError(
            f"a piece of work is {rows} images: {size_text(images)} at {at}; but a node of the cluster "
            f"has an object store of {size_text(smallest)}. Start Ray with a larger "
            "--object-store-memory, or lower --rows-per-chunk (a run that was begun keeps its own)"
        )
    # Ray Data sends an actor twice as many pieces as it takes; its answers wait to be written.
    wanted = placement.actors * (2 * ACTOR_CALLS * images + (1 + ACTOR_CALLS) * classes)
    if sum(stores) < wanted:
        logger.warning(
            f"{placement.actors} model actors keep about {size_text(wanted)} on its way, and the "
            f"cluster's object stores hold {size_text(sum(stores))}: what does not fit is spilled "
            "to disk, which is slow. A lower --rows-per-chunk mends it (a run that was begun keeps its "
            "own)"
        )


def _check_disk(output: Store, layout: Layout, manifest: ManifestInfo) -> None:
    """Of a local output: the rows that are not written yet, and two files that are being put together."""
    free = shutil.disk_usage(output.uri).free
    row = min(MASK_BYTES, manifest.bytes / manifest.rows or MASK_BYTES)
    there = sum(entry.size or 0 for entry in output.child("images").walk()) if _begun(output) else 0
    wanted = layout.rows * row + 2 * layout.rows_per_file * row - there
    if free < wanted:
        raise OutputError(
            f"the results of {layout.rows:,} images need about {size_text(wanted)} more (up to "
            f"{size_text(MASK_BYTES)} an image), and the disk of {output.uri} has {size_text(free)} "
            "free: make room, or choose another --output"
        )


def _begun(output: Store) -> bool:
    return output.child("images").is_folder()


def _check_nodes(config: SegmentConfig, output: Store) -> None:
    """A path of this machine has to be a path of every node that works.

    One that joins later finds out when it reads (see `check_source`).
    """
    others = [n for n in _workers() if n["NodeID"] != ray.get_runtime_context().get_node_id()]
    first = str(read_rows(output.child(FOLDER), 0, 1)["uri"][0])
    given = [p for p in (first, config.checkpoint, config.base) if p is not None]
    paths = [os.path.abspath(p) for p in given if _is_local(p)]  # noqa: PTH100 (links stay)
    paths = [path for path in paths if Path(path).exists()]
    shared = output if _is_local(output.uri) else None
    if not others or (shared is None and not paths):
        return
    token = uuid.uuid4().bytes
    if shared is not None:
        shared.write_bytes(_PROBE, token)
    try:
        _refuse_blind(_ask(others, shared, token, paths))
    finally:
        if shared is not None:
            shared.remove(_PROBE)


def _ask(
    nodes: list[dict[str, Any]], shared: Store | None, token: bytes, paths: list[str]
) -> dict[str, list[str]]:
    """What each node does not see, by its name. A node that is lost meanwhile is no matter."""
    look = ray.remote(num_cpus=0, max_retries=3)(_unseen)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        asked[look.options(scheduling_strategy=there).remote(shared, token, paths)] = name
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    if silent:
        names = ", ".join(asked[reference] for reference in silent)
        logger.warning(f"no answer within {_ANSWER_S:.0f} s about local paths from {names}")
    unseen = {}
    for reference in answered:
        try:
            unseen[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError:
            logger.debug("a node was lost while it was asked", exc_info=True)
    return unseen


def _unseen(shared: Store | None, token: bytes, paths: Iterable[str]) -> list[str]:
    """The local paths that this node does not see, or may not write to."""
    missing = [path for path in paths if not Path(path).exists()]
    if shared is not None:
        probe = Path(shared.uri) / _PROBE
        if not probe.exists() or probe.read_bytes() != token:
            missing.append(shared.uri)
        elif not os.access(shared.uri, os.W_OK):
            missing.append(f"{shared.uri} to write")
    return missing


def _refuse_blind(unseen: dict[str, list[str]]) -> None:
    told = [f"{node} does not see {', '.join(paths)}" for node, paths in unseen.items() if paths]
    if told:
        raise ClusterError(
            f"{'; '.join(told)}, local on {socket.gethostname()}: use paths that every node mounts, "
            "or object storage (s3://...)"
        )


def _workers() -> list[dict[str, Any]]:
    """The nodes that work: a head node without CPUs does not."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]


def _is_local(uri: str) -> bool:
    return scheme_of(uri) == "file"
