"""cluster/kuberay/: against the API of KubeRay 1.6.2, and put together by kustomize where there is one.

The CRDs themselves are in no package index, so the fields are those of KubeRay's API reference, by hand,
and the rules those that its operator holds (controllers/ray/utils/validation.go).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cluster_files import KUBECTL, KUBERAY, OVERLAYS, of_kind, resolved

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl puts the overlays together")
JOBS = [name for name in OVERLAYS if name.split("-")[0] in ("segment", "train", "local")]
GPU = "nvidia.com/gpu"
KUBERNETES = "1.32"
FIELDS = {
    "RayCluster": "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec "
    "workerGroupSpecs gcsFaultToleranceOptions headServiceAnnotations suspend managedBy",
    "RayJob": "entrypoint entrypointNumCpus entrypointNumGpus entrypointResources submissionMode "
    "submitterConfig submitterPodTemplate backoffLimit activeDeadlineSeconds deletionStrategy "
    "rayClusterSpec clusterSelector jobId metadata runtimeEnvYAML shutdownAfterJobFinishes suspend "
    "ttlSecondsAfterFinished managedBy",
    "head": "serviceType headService enableIngress rayStartParams template resources labels",
    "workers": "groupName replicas minReplicas maxReplicas numOfHosts idleTimeoutSeconds suspend "
    "rayStartParams template scaleStrategy resources labels",
    "authOptions": "mode secretName enableK8sTokenAuth",
    "autoscalerOptions": "version idleTimeoutSeconds upscalingMode resources securityContext image "
    "imagePullPolicy env envFrom volumeMounts",
    "gcs": "redisAddress redisPassword redisUsername externalStorageNamespace",
    "rule": "policy condition",
}


def only(fields: str, thing: dict[str, Any]) -> None:
    assert set(thing) <= set(FIELDS[fields].split()), f"{fields}: no field of KubeRay's"


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
def test_cluster__has_only_fields_of_the_api(overlay: str) -> None:
    spec = cluster(overlay)
    only("RayCluster", spec)
    only("head", spec["headGroupSpec"])
    only("authOptions", spec["authOptions"])
    only("autoscalerOptions", spec["autoscalerOptions"])
    only("gcs", spec.get("gcsFaultToleranceOptions", {}))
    for group in spec["workerGroupSpecs"]:
        only("workers", group)
    if overlay in JOBS:
        only("RayJob", of_kind(overlay, "RayJob")["spec"])


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
    # Rules exclude these two, and beside an autoscaler the policy DeleteWorkers.
    assert not {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & set(spec)
    ttl: dict[str, dict[str, int]] = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        only("rule", rule)
        condition = dict(rule["condition"])
        seconds = condition.pop("ttlSeconds")
        ((_, status),) = condition.items()
        ttl.setdefault(status, {})[rule["policy"]] = seconds
    assert set(ttl) == {"SUCCEEDED", "Failed"}
    for rules in ttl.values():
        assert list(rules) == ["DeleteCluster", "DeleteSelf"]
        assert rules["DeleteCluster"] <= 3600 < rules["DeleteSelf"]


@needs_kubectl
def test_gcs_ft__keeps_its_password_in_a_secret() -> None:
    options = cluster("gcs-ft")["gcsFaultToleranceOptions"]
    wanted = {"secretKeyRef": {"name": "redis-password", "key": "password"}}
    assert options == {"redisAddress": "redis:6379", "redisPassword": {"valueFrom": wanted}}
    assert of_kind("gcs-ft", "StatefulSet")["spec"]["serviceName"] == "redis"
    assert [d for d in resolved("gcs-ft") if d["kind"] == "Secret"] == []


def test_network_policy__lets_nobody_in_from_outside() -> None:
    policy = yaml.safe_load((KUBERAY / "base/networkpolicy.yaml").read_text())["spec"]
    assert policy["podSelector"] == {}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all("ipBlock" not in source for rule in policy["ingress"] for source in rule["from"])
    (outside,) = [r for r in policy["egress"] if "ipBlock" in r["to"][0]]
    assert outside["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32"]
