"""cluster/kuberay/: against the API of KubeRay 1.6.2, and put together by kustomize where there is one.

The CRDs are in no package index. fixtures/kuberay-1.6.2.yaml has the fields in use with their types,
enumerations and nesting, written after KubeRay's API reference: a wrong name, type, value or place is
found, but not what KubeRay changes later. Pods and all that is Kubernetes' own are held to its schema.
The rules are those that KubeRay's operator holds (controllers/ray/utils/validation.go).
"""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster_files import KUBECTL, KUBERAY, OVERLAYS, load, of_kind, put_together, resolved

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl puts the overlays together")
JOBS = [name for name in OVERLAYS if name.split("-")[0] in ("segment", "train", "local")]
GPU = "nvidia.com/gpu"
KUBERNETES = "1.32"
SCHEMA = Path(__file__).parent / "fixtures/kuberay-1.6.2.yaml"


def refused(document: dict[str, Any]) -> list[str]:
    """What KubeRay's API would not take, field by field."""
    schema = yaml.safe_load(SCHEMA.read_text())
    schema |= {"oneOf": [{"$ref": f"#/$defs/{document['kind']}"}]}  # so that errors name the field
    validator = jsonschema.Draft202012Validator(schema)
    errors = [e for error in validator.iter_errors(document) for e in error.context or [error]]
    return [f"{e.json_path}: {e.message}" for e in errors]


def custom(overlay: str) -> dict[str, Any]:
    """The one object of an overlay that is KubeRay's."""
    (found,) = [d for d in resolved(overlay) if d["apiVersion"].startswith("ray.io/")]
    return found


def kustomizations() -> list[Path]:
    return sorted(KUBERAY.rglob("kustomization.yaml"))


@pytest.mark.parametrize("path", kustomizations(), ids=lambda p: p.parent.name)
def test_kustomization__names_files_that_are_there(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    patches = [patch["path"] for patch in content.get("patches", []) if "path" in patch]
    for name in content.get("resources", []) + content.get("components", []) + patches:
        target = path.parent / name
        target = target / "kustomization.yaml" if target.is_dir() else target
        assert list(yaml.safe_load_all(target.read_text())), name


def test_kustomization__uses_every_file() -> None:
    named = {path.resolve() for path in kustomizations()}
    for path in kustomizations():
        content = yaml.safe_load(path.read_text())
        patches = [patch["path"] for patch in content.get("patches", []) if "path" in patch]
        named |= {(path.parent / name).resolve() for name in content.get("resources", []) + patches}
    assert {p.resolve() for p in KUBERAY.rglob("*.yaml")} - named == set()


def cluster(overlay: str) -> dict[str, Any]:
    """The RayClusterSpec of an overlay: its own, or that of its RayJob."""
    if overlay in JOBS:
        return of_kind(overlay, "RayJob")["spec"]["rayClusterSpec"]
    return of_kind(overlay, "RayCluster")["spec"]


def pods(overlay: str) -> Iterator[dict[str, Any]]:
    """Every pod that an overlay makes."""
    spec = cluster(overlay)
    yield spec["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in spec["workerGroupSpecs"])
    if overlay in JOBS:
        yield of_kind(overlay, "RayJob")["spec"]["submitterPodTemplate"]["spec"]
    for document in resolved(overlay):
        if document["kind"] == "StatefulSet":
            yield document["spec"]["template"]["spec"]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cluster__is_what_kuberay_takes(overlay: str) -> None:
    assert refused(custom(overlay)) == []


WRONG = [
    ("apiVersion", "ray.io/v2"),
    ("spec.ttlSecondsAfterFinish", 60),
    ("spec.activeDeadlineSeconds", "86400"),
    ("spec.submissionMode", "K8sJob"),
    ("spec.submitterConfig.retries", 2),
    ("spec.rayClusterSpec.authOptions.mode", "basic"),
    ("spec.rayClusterSpec.autoscalerOptions.version", 2),
    ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
    ("spec.rayClusterSpec.headGroupSpec.groupName", "head"),
    ("spec.rayClusterSpec.workerGroupSpecs.0.resources.GPU", 1),
    ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", -1),
]


@needs_kubectl
@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda v: str(v).split(".")[-1])
def test_schema_of_kuberay__finds(path: str, value: Any) -> None:
    document = copy.deepcopy(custom("segment-l40s"))
    *above, name = path.split(".")
    place: Any = document
    for key in above:
        place = place[int(key) if key.isdigit() else key]
    place[name] = value
    (said,) = refused(document)
    assert name in said


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cluster__keeps_what_the_operator_demands(overlay: str) -> None:
    spec = cluster(overlay)
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        started = {"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"])
        assert not (started and group.get("resources")), "one place for resources"
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert all(isinstance(value, str) for value in group.get("resources", {}).values())
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"
        names = {v["name"] for v in group["template"]["spec"]["volumes"]}
        (container,) = group["template"]["spec"]["containers"]
        assert {m["name"] for m in container["volumeMounts"]} == names


def test_cluster__head_shares_its_logs_with_the_autoscaler() -> None:
    """KubeRay mounts the volume of this name, at this place, into the container that it adds."""
    head = yaml.safe_load((KUBERAY / "base/raycluster.yaml").read_text())["spec"]["headGroupSpec"]
    pod = head["template"]["spec"]
    assert "emptyDir" in {v["name"]: v for v in pod["volumes"]}["ray-logs"]
    assert {"name": "ray-logs", "mountPath": "/tmp/ray"} in pod["containers"][0]["volumeMounts"]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cluster__object_store_fits_into_shared_memory(overlay: str) -> None:
    """Ray takes 30 % of the memory for it, and the disk where /dev/shm has less."""
    spec = cluster(overlay)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (shared,) = [v["emptyDir"] for v in pod["volumes"] if v["name"] == "memory"]
        memory = mebibytes(pod["containers"][0]["resources"]["limits"]["memory"])
        assert 0.3 * memory <= mebibytes(shared["sizeLimit"]) < 0.5 * memory


def mebibytes(quantity: str) -> int:
    number, unit = quantity[:-2], quantity[-2:]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cluster__costs_nothing_without_work(overlay: str) -> None:
    spec = cluster(overlay)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    assert GPU not in head["resources"]["limits"]
    for group in spec["workerGroupSpecs"]:
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
        assert group["maxReplicas"] <= 8


@needs_kubectl
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "local-cpu"])
def test_cluster__gpu_group_says_the_same_to_ray_and_kubernetes(overlay: str) -> None:
    (group,) = cluster(overlay)["workerGroupSpecs"]
    pod = group["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert pod["containers"][0]["resources"]["requests"] == limits
    assert (group["resources"]["CPU"], group["resources"]["GPU"]) == (limits["cpu"], limits[GPU])
    kind = "A100" if "a100" in overlay else "L40S"
    assert group["resources"][f"accelerator_type:{kind}"] == "1"
    assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert ("p4d" if kind == "A100" else "g6e") in str(
        (pod.get("affinity"), pod.get("nodeSelector"))
    )
    assert pod["volumes"][1]["emptyDir"]["medium"] == "Memory"


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_documents__are_what_kubernetes_takes(overlay: str) -> None:
    """By the API server's own schema, without an unknown field; of KubeRay's kinds their pods."""
    plain = [d for d in resolved(overlay) if not d["apiVersion"].startswith("ray.io/")]
    bare = [{"apiVersion": "v1", "kind": "Pod", "spec": pod} for pod in pods(overlay)]
    options = cluster(overlay)["autoscalerOptions"]
    added = {key: options[key] for key in ("resources", "securityContext")}
    autoscaler = {"name": "autoscaler", "image": "that-of-the-head", **added}  # as KubeRay adds it
    bare.append({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [autoscaler]}})
    for document in [*plain, *bare]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert len(plain) >= 4


def test_schema__knows_a_wrong_field() -> None:
    pod = {"containers": [{"name": "a", "image": "b", "imagePolicy": "Always"}]}
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "spec": pod}, KUBERNETES, strict=True
        )


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods__are_confined(overlay: str) -> None:
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            confined = container["securityContext"]
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])
            assert container["image"] != "dinoidd", "no image was put in"
            if container["name"] != "submitter":
                assert {"readinessProbe", "livenessProbe"} <= set(container)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_service_accounts__are_the_ones_the_pods_name(overlay: str) -> None:
    accounts = {d["metadata"]["name"] for d in resolved(overlay) if d["kind"] == "ServiceAccount"}
    spec = cluster(overlay)
    assert spec["headGroupSpec"]["template"]["spec"]["serviceAccountName"] == "dinoidd-head"
    for group in spec["workerGroupSpecs"]:
        assert group["template"]["spec"]["serviceAccountName"] == "dinoidd-worker"
        assert group["template"]["spec"]["automountServiceAccountToken"] is False
    assert accounts == {"dinoidd-head", "dinoidd-worker"}
    for document in resolved(overlay):
        assert document["metadata"].get("namespace", "dinoidd") == "dinoidd"
        if document["kind"] == "ServiceAccount":
            assert "eks.amazonaws.com/role-arn" in document["metadata"]["annotations"]


@needs_kubectl
@pytest.mark.parametrize("overlay", JOBS)
def test_job__ends_and_clears_up(overlay: str) -> None:
    spec = of_kind(overlay, "RayJob")["spec"]
    assert (spec["backoffLimit"], spec["submitterConfig"]["backoffLimit"]) == (2, 2)
    assert 0 < spec["activeDeadlineSeconds"] <= 172800
    # In every terminal state; a rule of deletionStrategy can name none for STOPPED.
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert "deletionStrategy" not in spec


@needs_kubectl
def test_gcs_ft__keeps_its_password_in_a_secret() -> None:
    options = cluster("gcs-ft")["gcsFaultToleranceOptions"]
    wanted = {"secretKeyRef": {"name": "redis-password", "key": "password"}}
    assert options == {"redisAddress": "redis:6379", "redisPassword": {"valueFrom": wanted}}
    assert of_kind("gcs-ft", "StatefulSet")["spec"]["serviceName"] == "redis"
    assert [d for d in resolved("gcs-ft") if d["kind"] == "Secret"] == []


@needs_kubectl
def test_monitoring__can_be_added_to_an_overlay(tmp_path: Path) -> None:
    shutil.copytree(KUBERAY, tmp_path / "kuberay")
    overlay = tmp_path / "kuberay/overlays/segment-l40s"
    with (overlay / "kustomization.yaml").open("a") as file:
        file.write("  - ../../components/monitoring\n")
    added = [d for d in put_together(overlay) if d not in resolved("segment-l40s")]
    documents = {document["kind"]: document for document in added}
    assert len(added) == 2
    monitor, rules = documents["PodMonitor"], documents["PrometheusRule"]
    assert monitor["metadata"]["namespace"] == rules["metadata"]["namespace"] == "dinoidd"
    assert monitor["metadata"]["labels"] == rules["metadata"]["labels"]
    assert rules["spec"] == {"groups": load("prometheus/alerts.yml")["groups"]}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_monitoring__finds_the_metrics_of_every_pod(overlay: str) -> None:
    monitor = yaml.safe_load((KUBERAY / "components/monitoring/podmonitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    spec = cluster(overlay)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        ports = group["template"]["spec"]["containers"][0]["ports"]
        (port,) = [p["containerPort"] for p in ports if p["name"] == endpoint["port"]]
        assert str(port) == group["rayStartParams"]["metrics-export-port"]


def test_network_policy__lets_nobody_in_from_outside() -> None:
    policy = yaml.safe_load((KUBERAY / "base/networkpolicy.yaml").read_text())["spec"]
    assert policy["podSelector"] == {}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all("ipBlock" not in source for rule in policy["ingress"] for source in rule["from"])
    (outside,) = [r for r in policy["egress"] if "ipBlock" in r["to"][0]]
    assert outside["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32"]
