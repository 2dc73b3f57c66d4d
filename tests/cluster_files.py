"""The files of cluster/, read: YAML documents, the commands in them, and overlays put together."""

import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())
KUBECTL = shutil.which("kubectl")


def text(name: str) -> str:
    return (CLUSTER / name).read_text()


def load(name: str) -> Any:
    return yaml.safe_load(text(name))


def pin(package: str) -> str:
    """The version that constraints.txt gives a package."""
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert found, package
    return found[1]


@cache
def resolved(overlay: str) -> tuple[dict[str, Any], ...]:
    """The documents of an overlay, as the real kustomize puts them together."""
    return put_together(KUBERAY / "overlays" / overlay)


def put_together(overlay: Path) -> tuple[dict[str, Any], ...]:
    command = [KUBECTL or "kubectl", "kustomize", str(overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Any]:
    (found,) = [document for document in resolved(overlay) if document["kind"] == kind]
    return found


def commands(script: str) -> list[list[str]]:
    """The `dinoidd ...` commands of a shell script, as words without what goes before and after."""
    script = re.sub(r'bash -c "(.*)"', r"\1", script.replace("\\\n", " "), flags=re.S)
    pattern = r"(?:^|(?<!-n)\s)(?:python jobs/(\w+)\.py|dinoidd) +([^;&|\n]+)"
    found = re.findall(pattern, script, re.M)
    return [[job, *words] if job else words for job, w in found for words in [shlex.split(w, True)]]
