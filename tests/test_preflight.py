"""A run that can never go well ends before a model is loaded, and says what is short."""

import logging
import shutil
import socket
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from images import write_plain
from segment_runs import embedded_ray

from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import ManifestInfo, index_images
from dinoidd.errors import ClusterError, OutputError
from dinoidd.log import logger
from dinoidd.segment import cluster, preflight, waiting
from dinoidd.segment.cluster import Placement, place
from dinoidd.segment.layout import Layout
from dinoidd.segment.preflight import check_room
from dinoidd.storage import Store

ONE = Placement(device="cpu", actors=1, threads=1)
ON_GPU = {"CPU": 1.0, "GPU": 1.0}
LAYOUT = Layout(rows=1000, rows_per_chunk=64, rows_per_file=128)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The nodes of a cluster that is not there; the first may be added to by an autoscaler."""
    there: list[dict[str, float]] = []

    def resources() -> dict[str, float]:
        names = {name for node in there for name in node}
        return {name: sum(node.get(name, 0) for node in there) for name in names}

    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": 1, "Resources": n} for n in there])
    monkeypatch.setattr(cluster.ray, "cluster_resources", resources)
    monkeypatch.setattr(cluster, "available_resources_per_node", lambda: dict(enumerate(there)))
    monkeypatch.setattr(cluster, "can_add", lambda bundles: False)
    return there


def refusal(*arguments: object) -> str:
    with pytest.raises(ClusterError) as caught:
        place(*arguments)
    return str(caught.value)


def test_place__what_is_short(nodes: list[dict[str, float]]) -> None:
    nodes += [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}]
    assert refusal(8, "cuda") == (
        "8 model actors need 8 GPUs (it has 1) and 8.75 CPUs (it has 6), so the run would wait for "
        "ever: lower --actors, choose --device cpu, or add nodes"
    )
    assert "6 model actors need 6.75 CPUs (it has 6), so" in refusal(6, "cpu")
    assert place(None, "auto").actors == 1
    assert place(5, "cpu").actors == 5


def test_place__gpus_and_cpus_on_different_nodes(nodes: list[dict[str, float]]) -> None:
    nodes += [{"CPU": 16.0}, {"GPU": 2.0, "CPU": 1.0}]
    assert "2 model actors need a GPU and a CPU each on one node (its nodes have room for 1)" in (
        refusal(2, "cuda")
    )
    assert "need a whole CPU each on one node (its nodes have room for 17)" not in refusal(
        17, "cpu"
    )


def test_place__accelerator_type(nodes: list[dict[str, float]]) -> None:
    nodes += [{"CPU": 8.0, "GPU": 4.0, "accelerator_type:T4": 1.0}]
    nodes += [{"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0}]
    assert place(None, "auto").actors == 6
    placement = place(None, "auto", "A100")
    assert (placement.device, placement.actors) == ("cuda", 2)
    assert placement.remote_args == {"accelerator_type": "A100"}
    assert "3 model actors need 3 GPUs of type A100 (it has 2)" in refusal(3, "cuda", "A100")
    assert refusal(1, "auto", "H100") == (
        "no node of the cluster has an accelerator of type 'H100', and no autoscaler adds one: it "
        "has A100, T4. Set --accelerator-type to one that is there, leave it out, or add such a node (an "
        "autoscaler's group names it by the resource 'accelerator_type:H100')"
    )
    assert refusal(1, "cpu", "T4") == "--accelerator-type T4 goes with --device cuda"


def test_place__an_autoscaler_may_add_the_rest(
    nodes: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes += [{"CPU": 4.0, "GPU": 1.0}]
    asked: list[list[dict[str, float]]] = []
    monkeypatch.setattr(cluster, "can_add", lambda bundles: asked.append(bundles) or len(asked) < 2)
    placement = place(4, "auto")
    assert (placement.device, placement.actors, placement.most) == ("cuda", 4, 4)
    assert asked == [[ON_GPU] * 4 + [{"CPU": 0.75}]], "the missing three would need fewer nodes"
    assert "4 GPUs (it has 1)" in refusal(4, "cuda")
    assert place(None, "cuda").most == cluster.MOST_ACTORS
    assert place(None, "cpu").most == 1


@pytest.mark.parametrize(
    ("free", "actors", "request_"),
    [
        ({"CPU": 4.0, "GPU": 4.0}, 4, [ON_GPU] * 4 + [{"CPU": 0.75}]),
        ({"CPU": 4.0, "GPU": 4.0}, 6, [ON_GPU] * 6 + [{"CPU": 0.75}]),
        ({"CPU": 2.75, "GPU": 3.0}, 6, [ON_GPU] * 4 + [{"CPU": 0.75}] * 2),
        ({}, 6, [ON_GPU] * 2 + [{"CPU": 0.75}]),
    ],
)
def test_may_come__asks_for_the_whole_need_and_then_without_what_is_busy(
    nodes: list[dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    free: dict[str, float],
    actors: int,
    request_: list[dict[str, float]],
) -> None:
    nodes += [{"CPU": 4.0, "GPU": 4.0}]
    monkeypatch.setattr(cluster, "available_resources_per_node", lambda: {"node": free})
    placement = Placement(device="cuda", actors=actors, threads=1)
    assert cluster.request_of(placement) == request_
    asked: list[list[dict[str, float]]] = []
    answers = iter([False, None, True, False, False])
    monkeypatch.setattr(cluster, "can_add", lambda bundles: asked.append(bundles) or next(answers))
    whole = [ON_GPU] * actors + [{"CPU": 0.75}]
    if request_ == whole:
        assert not cluster.may_come(placement)
        assert asked == [whole]
    else:
        assert cluster.may_come(placement), "a None tells nothing"
        assert cluster.may_come(placement)
        assert not cluster.may_come(placement)
        assert asked == [whole, request_, whole, whole, request_]


@pytest.mark.parametrize("adds", [True, False, None])
def test_place__auto_asks_for_a_gpu_where_there_is_none(
    nodes: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch, adds: bool | None
) -> None:
    nodes += [{"CPU": 4.0}]
    monkeypatch.setattr(cluster, "can_add", lambda bundles: adds)
    if adds is None:
        assert "does not tell whether it may add one: say --device cuda" in refusal(None, "auto")
    else:
        assert place(None, "auto").device == ("cuda" if adds else "cpu")


@pytest.mark.parametrize(
    ("node", "awaited", "actors"),
    [
        ({"CPU": 8.0, "GPU": 8.0}, 1, 7),
        ({"CPU": 9.0, "GPU": 8.0}, 1, 8),
        ({"CPU": 8.0, "GPU": 8.0}, 8, 8),
        ({"CPU": 1.0, "GPU": 1.0}, 1, 1),
    ],
)
def test_wait_for_place__what_came_has_room_for_readers_too(
    nodes: list[dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    node: dict[str, float],
    awaited: int,
    actors: int,
) -> None:
    class Group:
        def wait(self, _: float) -> bool:
            nodes.append(node)
            return True

    monkeypatch.setattr(waiting.ray.util, "placement_group", lambda bundles: Group())
    monkeypatch.setattr(waiting.ray.util, "remove_placement_group", lambda group: None)
    placement = Placement(device="cuda", actors=1, threads=1, fixed=False)
    assert waiting.wait_for_place(placement, awaited).actors == actors


def test_wait_for_place__ends_where_no_node_comes(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WAIT_LINE_S", 1)
    monkeypatch.setattr(waiting, "_LOOK_S", 1)
    monkeypatch.setattr(waiting, "NODE_PATIENCE_S", 1.0)
    with pytest.raises(ClusterError) as caught:
        waiting.wait_for_place(Placement(device="cuda", actors=1, threads=1))
    told = (
        "no autoscaler has brought 1 CPU, 1 GPU on one node within 1s; the cluster has 4 CPU, free"
    )
    assert str(caught.value).startswith(told)


def test_wait_for_place__says_what_it_waits_for(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "WAIT_LINE_S", 1)
    monkeypatch.setattr(waiting, "_LOOK_S", 1)
    waiting.wait_for_place(ONE)

    def sleep(seconds: float) -> None:  # pickled whole, as it is no module's
        time.sleep(seconds)

    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.INFO, logger="dinoidd"):
        busy = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(sleep).remote(5.0)
        ray.wait([busy], timeout=2.0)
        waiting.wait_for_place(ONE)
        ray.get(busy)
    waits = [line for line in caplog.messages if line.startswith("waiting for 1 CPU on one node")]
    assert waits, caplog.messages
    assert "the cluster has 4 CPU, free are " in waits[0]


def check(output: Path, manifest_bytes: int = 10**9, **given: object) -> None:
    manifest = ManifestInfo(
        rows=1000, files=1, bytes=manifest_bytes, input="in", skipped={}, sha256=""
    )
    config = SegmentConfig(**{"input": "in", "output": str(output), "preset": "tiny", **given})
    check_room(config, Store.open(str(output)), LAYOUT, manifest, ONE, 1024)


@pytest.fixture
def output(tmp_path: Path, local_ray: None) -> Path:
    write_plain(tmp_path / "in", 2)
    index_images(str(tmp_path / "in"), Store.open(str(tmp_path / "out")))
    return tmp_path / "out"


def worker(name: str, store: float = 1e12) -> dict[str, object]:
    return {
        "NodeID": name,
        "NodeManagerHostname": name,
        "NodeManagerAddress": "10.0.0.1",
        "Alive": True,
        "Resources": {"CPU": 2.0, "object_store_memory": store},
    }


def test_check_room__object_store(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(output)
    monkeypatch.setattr(preflight.ray, "nodes", lambda: [worker("a", 1e8)])
    with pytest.raises(ClusterError) as caught:
        check(output)
    assert str(caught.value) == (
        "a piece of work is 64 images: 201.3 MB at 1024x1024; but a node of the cluster has an object "
        "store of 100.0 MB. Start Ray with a larger --object-store-memory, or lower --rows-per-chunk (a "
        "run that was begun keeps its own)"
    )


def test_check_room__disk(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Usage(10**9, 0, 4 * 10**7))
    with pytest.raises(OutputError) as caught:
        check(output)
    assert str(caught.value) == (
        "the results of 1,000 images need about 40.2 MB more (up to 32.0 kB an image), and the disk "
        f"of {output} has 40.0 MB free: make room, or choose another --output"
    )
    check(output, manifest_bytes=10**6)  # images of 1 kB have masks that are no larger
    (output / "images").mkdir()
    (output / "images" / "part").write_bytes(bytes(300_000))
    check(output)


def test_check_room__a_node_does_not_see_a_path(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = {n["NodeID"]: n for n in ray.nodes()}
    seen = []

    def ask(nodes: list, shared: Store, token: bytes, paths: list[str]) -> dict[str, list[str]]:
        seen.extend(paths)
        assert (output / ".dinoidd-node-check").read_bytes() == token
        return {n["NodeID"]: [shared.uri] for n in nodes}

    monkeypatch.setattr(preflight, "_ask", ask)
    check(output)
    assert seen == [], "one machine needs no looking"
    both = [*me.values(), worker("far")]
    monkeypatch.setattr(preflight.ray, "nodes", lambda: both)
    with pytest.raises(ClusterError) as caught:
        check(output)
    assert str(caught.value) == (
        f"far does not see {output}, local on {socket.gethostname()}: use paths that every node "
        "mounts, or object storage (s3://...)"
    )
    assert seen == [str(output.parent / "in" / "0000.png")]
    assert not (output / ".dinoidd-node-check").exists()


def test_ask__a_task_on_the_node_looks(output: Path) -> None:
    (node,) = (n for n in ray.nodes() if n["Alive"])
    shared = Store.open(str(output))
    gone = str(output.parent / "gone")
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    shared.write_bytes(".dinoidd-node-check", b"1")
    assert preflight._ask([node], shared, b"1", [gone, str(output)]) == {name: [gone]}
    assert preflight._ask([node], shared, b"2", []) == {name: [str(output)]}, "of another machine"
    shutil.rmtree(output)
    assert preflight._ask([node], shared, b"1", []) == {name: [str(output)]}
