"""A run on a cluster to which nodes come later: by hand, or by a real autoscaler from zero."""

import sys
import time
from collections import Counter

import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster
from ray_head import ray_head

from dinoidd.errors import ClusterError
from dinoidd.segment import cluster
from dinoidd.segment.flow import Flow
from dinoidd.segment.pipeline import run_stages
from dinoidd.segment.waiting import wait_for_place

PIECES = 150
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the tests


class Where:
    """A model that takes its time, and says on which node it is."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        time.sleep(0.3)
        node = ray.get_runtime_context().get_node_id()
        return rows.append_column("node", pa.array([node] * len(rows)))


def read(piece: int) -> pa.Table:
    return pa.table({"piece": [piece]})


def write(rows: pa.Table) -> dict[str, str]:
    return {"piece": rows["piece"][0].as_py(), "node": rows["node"][0].as_py()}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_pool__grows_to_a_node_that_joins() -> None:
    ray.shutdown()  # what an earlier test module started
    local = Cluster()
    try:
        local.add_node(num_cpus=3, num_gpus=1, object_store_memory=10**8)
        ray.init(local.address, logging_level="error", log_to_driver=False)
        placement = wait_for_place(cluster.place(None, "auto"))
        assert (placement.actors, placement.device) == (1, "cuda")
        stages = {"read": read, "model": Where, "arguments": {}, "write": write}
        found, most = [], 0
        for result in run_stages(range(PIECES), **stages, placement=placement):
            if not found:
                local.add_node(num_cpus=3, num_gpus=1, object_store_memory=10**8)
            found.append(result)
            most = max(most, Flow.stages()["model"].actors if Flow.stages() else 0)
        assert sorted(r["piece"] for r in found) == list(range(PIECES)), "each exactly once"
        nodes = Counter(r["node"] for r in found)
        assert len(nodes) == 2
        assert min(nodes.values()) > 5
        assert most == 2
    finally:
        ray.shutdown()
        local.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_autoscaler__brings_a_gpu_to_a_cluster_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    group = {"CPU": 3, "GPU": 1, "object_store_memory": 10**8}
    scarce = {"CPU": 3, "GPU": 8, "accelerator_type:A100": 1}
    groups = {
        "gpu": {"resources": group, "node_config": {}, "min_workers": 0, "max_workers": 2},
        "never": {"resources": scarce, "node_config": {}, "min_workers": 0, "max_workers": 0},
    }
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_head(cpus=0, groups=groups) as head:
        try:
            ray.init(head.address, logging_level="error", log_to_driver=False)
            with pytest.raises(ClusterError, match=r"3 model actors need 3 GPUs \(it has 0\)"):
                cluster.place(3, "cuda")
            with pytest.raises(ClusterError, match="type 'A100', and no autoscaler adds one"):
                cluster.place(None, "auto", "A100")
            placement = wait_for_place(cluster.place(None, "auto"))
            assert placement.device == "cuda"
            assert 1 <= placement.actors <= 2
            stages = {"read": read, "model": Where, "arguments": {}, "write": write}
            found = list(run_stages(range(PIECES), **stages, placement=placement))
            assert sorted(r["piece"] for r in found) == list(range(PIECES)), "each exactly once"
            assert len({r["node"] for r in found}) == 2, "and a second one, for the work there is"
        finally:
            ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_autoscaler__is_asked_for_what_idle_nodes_cannot_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray.shutdown()
    group = {"CPU": 4, "GPU": 4, "object_store_memory": 10**8}
    groups = {"gpu": {"resources": group, "node_config": {}, "min_workers": 1, "max_workers": 2}}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_head(cpus=0, groups=groups) as head:
        try:
            ray.init(head.address, logging_level="error", log_to_driver=False)
            until = time.monotonic() + 60
            while not (there := cluster.count_gpus(cluster.nodes_of(None))):
                assert time.monotonic() < until
                time.sleep(0.5)
            assert there == 4, "one of two nodes, and idle"
            with pytest.raises(ClusterError, match=r"8 GPUs \(it has 4\) and 8\.75 CPUs"):
                cluster.place(8, "cuda")
            with pytest.raises(ClusterError, match=r"10 GPUs \(it has 4\)"):
                cluster.place(10, "cuda")
            placement = wait_for_place(cluster.place(7, "cuda"), 7)
            assert placement.actors == 7
            assert cluster.count_gpus(cluster.nodes_of(None)) == 8
            with pytest.raises(ClusterError, match=r"need 8\.75 CPUs \(it has 8\)"):
                cluster.place(8, "cuda")
        finally:
            ray.shutdown()
