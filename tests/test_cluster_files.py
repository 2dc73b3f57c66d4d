"""cluster/: what can be known of it without a cloud. Versions, commands, permissions, secrets."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster_files import CLUSTER, KUBERAY, ROOT, commands, load, pin, text

from dinoidd.cli import build_parser

PYTHON = "3.12"
FILES = sorted(p for p in CLUSTER.rglob("*") if p.is_file())
# What the code calls of S3, and the permission that AWS asks for it.
ACTIONS = {
    "list_objects_v2": {"s3:ListBucket"},
    "get_object": {"s3:GetObject"},
    "put_object": {"s3:PutObject"},
    "delete_object": {"s3:DeleteObject"},
    "delete_objects": {"s3:DeleteObject"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "open": {"s3:GetObject", "s3:ListBucket"},  # HEAD is GetObject; a listing where that is refused
    "_put_file": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "FSSpecHandler": {"s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:AbortMultipartUpload"},
}
NO_REQUEST = {"set_session", "get_s3", "PyFileSystem"}


def ray_up() -> dict:
    """aws.yaml, completed and checked as `ray up` does, before it speaks to AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load("aws.yaml"))
    validate_config(config)
    return config


def test_aws__is_what_ray_up_takes() -> None:
    config = ray_up()
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert config["provider"]["use_internal_ips"] is True
    assert config["idle_timeout_minutes"] == 5


def test_aws__groups_begin_at_zero_and_name_their_gpus() -> None:
    config = ray_up()
    groups = {n: g for n, g in config["available_node_types"].items() if n != "head"}
    kinds = {"p4d": ("A100", 8), "p4de": ("A100", 8), "g6e": ("L40S", 1), "g5": ("A10G", 1)}
    markets = set()
    for name, group in groups.items():
        accelerator, gpus = kinds[group["node_config"]["InstanceType"].split(".")[0]]
        assert group["min_workers"] == 0, name
        assert group["resources"]["GPU"] == gpus, name
        assert group["resources"][f"accelerator_type:{accelerator}"] == 1, name
        assert group["node_config"]["IamInstanceProfile"] == {"Name": "WORKER_PROFILE"}, name
        spot = group["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        assert spot == name.endswith("-spot")
        markets.add((accelerator, spot))
    assert {("A100", True), ("A100", False), ("L40S", True), ("L40S", False)} <= markets


def test_aws__every_node_asks_for_the_token_and_ends_itself() -> None:
    config = ray_up()
    (variables,) = [c for c in config["setup_commands"] if "dinoidd.env" in c]
    assert "RAY_AUTH_MODE=token" in variables
    for role in ("head", "worker"):
        starts = config[f"{role}_start_ray_commands"]
        assert all(". ~/dinoidd.env;" in command for command in starts if "ray " in command)
        assert any(f"idle_shutdown.sh {role} " in command for command in starts)
    for group in config["available_node_types"].values():
        assert group["node_config"]["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert group["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


def test_aws__head_runs_prometheus_on_loopback() -> None:
    config = ray_up()
    (start,) = [c for c in config["head_start_ray_commands"] if "nohup prometheus" in c]
    (file,) = re.findall(r"--config\.file=\$HOME/dinoidd/(\S+)", start)
    assert (ROOT / file).is_file()
    assert "--web.listen-address=127.0.0.1:9090" in start
    assert "prometheus" in " ".join(load("aws.yaml")["head_setup_commands"])


@pytest.mark.parametrize("stage", ["setup", "head_setup", "head_start_ray", "worker_start_ray"])
def test_aws__commands_are_bash(stage: str) -> None:
    for command in load("aws.yaml")[f"{stage}_commands"]:
        ran = subprocess.run(["bash", "-n", "-c", command], capture_output=True, timeout=10)
        assert (ran.returncode, ran.stderr) == (0, b""), command


def test_aws__no_setup_command_installs_without_the_pins() -> None:
    for command in ray_up()["head_setup_commands"]:
        assert "pip install" not in command or "-c ~/dinoidd/constraints.txt" in command


def test_versions__agree_everywhere() -> None:
    ray, dockerfile = pin("ray"), text("Dockerfile")
    assert re.search(rf"^FROM python:{PYTHON}\.\d+-slim-bookworm$", dockerfile, re.M)
    assert f"python{PYTHON} -m venv" in " ".join(load("aws.yaml")["setup_commands"])
    assert re.search(rf"python:{PYTHON}\.\d+-", load("skypilot.yaml")["resources"]["image_id"])
    assert f"python{PYTHON} -m venv" in load("skypilot.yaml")["setup"]
    assert (
        yaml.safe_load((KUBERAY / "base/raycluster.yaml").read_text())["spec"]["rayVersion"] == ray
    )
    tags = {t for p in FILES for t in re.findall(r"ray\d\S*-py\d+-(?:cpu|cuda)", p.read_text())}
    image = f"ray{ray}-py{PYTHON.replace('.', '')}"
    assert tags == {f"{image}-cuda", f"{image}-cpu"}


def test_versions__python_is_one_the_package_takes() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11,<3.13"' in project, "choose PYTHON here anew"


def test_dockerfile__is_pinned_and_not_root() -> None:
    lines = text("Dockerfile").splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER 1000"]
    assert lines.index("USER 1000") > max(i for i, x in enumerate(lines) if x.startswith("COPY "))
    installs = re.findall(r"pip install [^\\\n]+", text("Dockerfile"))
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in i or "--no-deps" in i for i in installs)
    (of_pytorch,) = [i for i in installs if "--index-url" in i]  # which has not all of the pins
    assert "--no-deps" in of_pytorch
    assert "ADD " not in text("Dockerfile")
    assert ":latest" not in text("Dockerfile")


def test_dockerfile__copies_only_what_is_there_and_not_ignored() -> None:
    kept = {x[1:] for x in text("Dockerfile.dockerignore").splitlines() if x.startswith("!")}
    for line in re.findall(r"^COPY (.+) \S+$", text("Dockerfile"), re.M):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert name.split("/")[0] in kept, name
    assert text("Dockerfile.dockerignore").splitlines()[0] == "*"


def test_compiler__is_where_triton_compiles() -> None:
    """It wants a C compiler, its headers and Python's, which the image's base has."""
    packages = {"Dockerfile": ("gcc", "libc6-dev"), "aws.yaml": ("gcc", f"python{PYTHON}-dev")}
    for name, wanted in packages.items():
        installed = " ".join(re.findall(r"apt-get [^#\n]*install ([^#\n]+)", text(name)))
        assert set(wanted) <= set(installed.split()), name


def tool(name: str) -> str | None:
    """Of this environment, or of the machine."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(tool("hadolint") is None, reason="hadolint comes with the extra `lint`")
def test_dockerfile__as_hadolint_has_it() -> None:
    command = [str(tool("hadolint")), str(CLUSTER / "Dockerfile")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(tool("shellcheck") is None, reason="shellcheck is a package of its own")
@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts__as_shellcheck_has_them(path: Path) -> None:
    command = [str(tool("shellcheck")), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def commands_in_files() -> list[tuple[str, list[str]]]:
    readme = "\n".join(re.findall(r"```bash\n(.*?)```", text("README.md"), re.S))
    scripts = {"README.md": readme, "skypilot.yaml": load("skypilot.yaml")["run"]}
    for path in (KUBERAY / "components").rglob("rayjob.yaml"):
        scripts[path.parent.name] = yaml.safe_load(path.read_text())["spec"]["entrypoint"]
    local = yaml.safe_load((KUBERAY / "overlays/local-cpu/kustomization.yaml").read_text())
    scripts["local-cpu"] = yaml.safe_load(local["patches"][0]["patch"])[0]["value"]
    return [(name, words) for name, script in scripts.items() for words in commands(script)]


def test_commands__are_ones_that_dinoidd_takes(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands_in_files()
    assert len({name for name, _ in found}) == 5
    wrong = [
        f"{name}: dinoidd {shlex.join(words)}: {capsys.readouterr().err}"
        for name, words in found
        if not taken(words)
    ]
    assert wrong == []


def taken(words: list[str]) -> bool:
    """Whether the parser of that very command takes them."""
    try:
        build_parser(words).parse_args(words)
    except SystemExit as end:
        return end.code == 0
    return True


def s3_calls() -> set[str]:
    """The requests of dinoidd/storage: `call_s3("name")`, and methods of s3fs and aiobotocore."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "dinoidd/storage/s3.py").read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "call_s3":
            assert isinstance(node.args[0], ast.Constant)
            found.add(node.args[0].value)
        elif ast.unparse(node.func.value) in ("self.fs", "self.single", "client", "pyarrow.fs"):
            found.add(node.func.attr)
    return found - NO_REQUEST


def test_iam__allows_what_the_code_calls_and_no_more() -> None:
    needed = set().union(*(ACTIONS[call] for call in s3_calls()))
    policy = json.loads(text("iam-policy.json"))
    given = {}
    for statement in policy["Statement"]:
        actions = statement["Action"]
        given[statement["Sid"]] = {actions} if isinstance(actions, str) else set(actions)
        assert "*" not in str(actions)
    assert set().union(*given.values()) == needed
    assert given["ReadImagesAndWeights"] == {"s3:GetObject"}  # the input is never written


def test_iam__ends_only_machines_of_this_cluster() -> None:
    policy = json.loads(text("iam-policy-head.json"))
    (ends,) = [s for s in policy["Statement"] if "ec2:TerminateInstances" in s["Action"]]
    name = load("aws.yaml")["cluster_name"]
    assert ends["Condition"]["StringEquals"] == {"aws:ResourceTag/ray-cluster-name": name}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CLUSTER).as_posix())
def test_files__hold_no_secret(path: Path) -> None:
    content = path.read_text()
    assert not re.search(r"(AKIA|ASIA)[A-Z0-9]{16}", content)
    assert "BEGIN" not in content or "PRIVATE KEY" not in content
    assert not re.search(r"aws_secret_access_key\s*[:=]\s*\S", content, re.I)
    assert not re.search(r"(password|token)\s*[:=]\s*['\"]?[0-9a-f]{16}", content, re.I)
    assert not re.search(r"\b(?!111122223333|123456789012)\d{12}\b", content)  # an account's number


def test_idle_shutdown__ends_a_worker_without_ray(tmp_path: Path) -> None:
    for name, body in {"sudo": 'echo "$@" > ' + str(tmp_path / "done"), "pgrep": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = str(CLUSTER / "idle_shutdown.sh")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "POLL_SECONDS": "0",
        "TMPDIR": str(tmp_path),
    }
    result = subprocess.run(
        ["bash", script, "worker", "3"], env=environment, capture_output=True, text=True, timeout=30
    )
    assert result.stdout.endswith("no work for 3 minutes: shutting down\n")
    assert (tmp_path / "done").read_text() == "shutdown -h now\n"


def test_idle_shutdown__refuses_another_role() -> None:
    command = ["bash", str(CLUSTER / "idle_shutdown.sh"), "driver", "3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 2
    assert result.stderr == "idle_shutdown.sh: driver is neither head nor worker\n"


def local(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`local.sh WORDS`, with that folder for its files."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(CLUSTER / "local.sh"), *words],
        env=os.environ | {"DINOIDD_CLUSTER": str(state), "PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_local__says_what_it_takes(tmp_path: Path) -> None:
    for words in ([], ["start"]):
        ran = local(tmp_path / "state", *words)
        assert ran.returncode == 2
        assert "local.sh up " in ran.stderr
        assert "set -euo" not in ran.stderr


def test_local__touches_no_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for action, said in {
        "up": "to a folder that is not there yet",
        "down": "nothing was started in",
    }.items():
        ran = local(tmp_path, action)
        assert ran.returncode == 1
        assert said in ran.stderr
    assert (tmp_path / "file").exists()


SENTENCES = (
    "waiting for",
    " on one node",
    "so the run would wait for ever",
    "no node of the cluster has an accelerator of type",
    "out of memory on",
    "a process of the run died and did not recover:",
    "what does not fit is spilled to disk, which is slow",
    "access is denied: these credentials have no permission for it",
    "(--outage-patience); what is done is kept",
    "classes, the class table",
    "hold raw values that the class table",
)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_troubleshooting__quotes_what_is_really_said(sentence: str) -> None:
    code = "".join(path.read_text() for path in (ROOT / "dinoidd").rglob("*.py"))
    assert sentence in re.sub(r'"\s*f?"', "", code)
    assert sentence in text("README.md")


def test_readme__needs_at_most_ten_commands_a_way() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", text("README.md"), re.S)
    assert len(blocks) == 10
    for block in blocks:
        lines = block.strip().splitlines()
        assert len([line for line in lines if not line.startswith("#")]) <= 10
