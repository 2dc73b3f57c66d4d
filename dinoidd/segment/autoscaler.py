"""Asks a cluster's autoscaler, if it has one, whether it can add nodes.

Ray tells nowhere what kinds of nodes may come: the `ClusterConfig` it has a place for is written by
nothing in Ray 2.60. But autoscaler v2, which `ray up` and KubeRay start, looks at each request that
waits and says which it cannot meet. v1 tells no more than that it is there. A cluster put together by
hand has one of the two as well, which only shows what there is.
"""

import json
import time
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from dinoidd.log import logger

_ANSWER_S = 60.0  # it looks every 5 s, once it runs
_POLL_S = 0.5


def can_add(bundles: list[dict[str, float]]) -> bool | None:
    """Whether an autoscaler brings nodes that hold these bundles of resources, beside what is there.

    To ask is to begin: v2 starts nodes for what it can meet.

    Returns:
        None: there is one, and it does not tell.
    """
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    if not is_autoscaler_v2(fetch_from_server=True):
        return None if _v1_adds_nodes() else False
    group = ray.util.placement_group(bundles)
    try:
        return _v2_meets(group)
    finally:
        ray.util.remove_placement_group(group)


def _v1_adds_nodes() -> bool:
    """One that only shows the nodes calls each of them a kind of its own."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    kinds = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    shown = {f"node_{node['NodeID']}" for node in ray.nodes()}
    return bool(set(kinds.values()) - shown)


def _v2_meets(group: PlacementGroup) -> bool | None:
    """What it says when it has seen the request."""
    asked = _v2_status().cluster_resource_state.cluster_resource_state_version
    until = time.monotonic() + _ANSWER_S
    while time.monotonic() < until:
        state = _v2_status().autoscaling_state
        if state.last_seen_cluster_resource_state_version > asked:
            unmet = [request.details for request in state.infeasible_gang_resource_requests]
            return not any(details.startswith(group.id.hex()) for details in unmet)
        time.sleep(_POLL_S)
    logger.warning(f"the cluster's autoscaler has not answered within {_ANSWER_S:.0f} s")
    return None


def _v2_status() -> Any:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    client = GcsClient(ray.get_runtime_context().gcs_address)
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply
