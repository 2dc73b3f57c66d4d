"""`--accelerator-type` on a Ray cluster of two nodes: the model goes where it is asked for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from images import write_plain
from ray.cluster_utils import Cluster
from segment_runs import Ran, command, segment

from dinoidd.segment import cluster
from dinoidd.segment.pipeline import run_stages
from dinoidd.segment.waiting import wait_for_place

KINDS = ("A100", "T4")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the tests


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """A node of each kind, with a logical GPU: its id by its kind."""
    ray.shutdown()  # what an earlier test module started
    local = Cluster()
    try:
        for kind in KINDS:
            local.add_node(num_cpus=2, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
        ray.init(local.address, logging_level="error", log_to_driver=False)
        yield {
            kind: node["NodeID"]
            for node in ray.nodes()
            for kind in KINDS
            if f"accelerator_type:{kind}" in node["Resources"]
        }
    finally:
        ray.shutdown()
        local.shutdown()


class Where:
    """A model that says on which node it is."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        node = ray.get_runtime_context().get_node_id()
        return rows.append_column("node", pa.array([node] * len(rows)))


def read(piece: int) -> pa.Table:
    return pa.table({"piece": [piece]})


def write(rows: pa.Table) -> dict[str, str]:
    return {"node": rows["node"][0].as_py()}


@pytest.mark.parametrize("kind", KINDS)
def test_accelerator_type__places_the_model(nodes: dict[str, str], kind: str) -> None:
    placement = cluster.place(None, "auto", kind)
    assert (placement.device, placement.actors) == ("cuda", 1)
    wait_for_place(placement)
    stages = {"read": read, "model": Where, "arguments": {}, "write": write}
    found = list(run_stages(range(6), **stages, placement=placement))
    assert [result["node"] for result in found] == [nodes[kind]] * 6


def refused(ran: Ran) -> str:
    assert ran.status == 2, ran.err
    return ran.err.splitlines()[-1]


def test_accelerator_type__of_every_command(nodes: dict[str, str], tmp_path: Path) -> None:
    """What the cluster has not is told by all that place a model; `retry` has its own test."""
    write_plain(tmp_path / "in", 4)
    given = ("--preset", "tiny", "--input", tmp_path / "in", "--accelerator-type")
    told = "type 'H100', and no autoscaler adds one: it has A100, T4. Set --accelerator-type to"
    assert told in refused(segment("--output", tmp_path / "out", *given, "H100"))
    assert told in refused(command("plan", "segment", *given, "H100"))
    told = "2 model actors need 2 GPUs of type T4 (it has 1), so the run would wait for ever"
    assert told in refused(segment("--output", tmp_path / "out", *given, "T4", "--actors", 2))
    assert not (tmp_path / "out" / "run.json").exists()
