"""Imports point one way, and heavy packages stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for top in ("dinoidd", "jobs") for p in (ROOT / top).rglob("*.py"))

# Where alone a package is imported. Ray: where a job is wired.
STORAGE = ["dinoidd/storage/*.py"]
HOMES = {
    "ray": [
        f"dinoidd/segment/{n}.py"
        for n in (
            *("autoscaler", "cluster", "flow", "merging", "metrics", "pieces", "pipeline"),
            *("preflight", "tries_actor", "waiting"),
        )
    ]
    + ["dinoidd/train/*.py", "dinoidd/*/job.py", "dinoidd/upkeep/tasks.py", "jobs/*.py"],
    "fsspec": STORAGE,
    "s3fs": STORAGE,
    "gcsfs": STORAGE,
    "aiobotocore": STORAGE,
    "botocore": STORAGE,
    "boto3": STORAGE,
    "aiohttp": STORAGE,
    "safetensors": ["dinoidd/checkpoint/*.py", "dinoidd/training/*.py"],
    "transformers": [],
    "datasets": [],
    "pandas": [],
    "polars": [],
    "triton": [
        "dinoidd/models/argmax_triton.py",
        "dinoidd/models/deformable_kernels.py",
        "dinoidd/models/deformable_triton.py",
    ],
}
# What a package may import of dinoidd, besides itself. Packages not named: anything but the command line.
BASE = {"errors", "log"}
ALLOWED = {
    "errors": set(),
    "log": set(),
    "classes": {"errors"},
    "config": {"errors"},
    "metrics": {"errors", "classes"},
    "models": {"errors"},
    "storage": BASE,
    "data": BASE | {"classes", "config", "storage", "output"},
    "output": BASE | {"classes", "config", "storage", "data"},
    "checkpoint": BASE | {"classes", "models", "storage"},
    "inference": BASE | {"classes", "config", "models", "checkpoint", "storage", "data", "metrics"},
    "training": BASE
    | {"ahead", "classes", "config", "models", "checkpoint"}
    | {"storage", "data", "metrics", "output"},
    "train": BASE
    | {"ahead", "interruption", "classes", "models", "checkpoint"}
    | {"storage", "data", "training", "segment"},
}
COMMAND_LINE = {"cli", "__main__", "jobs"}


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that a file imports anywhere in it, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unit(path: Path) -> str:
    """`models` for dinoidd/models/rope.py, `errors` for dinoidd/errors.py, `jobs` for jobs/x.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "jobs" else parts[1]


def dinoidd_units(path: Path) -> set[str]:
    """The packages of dinoidd that a file imports, its own left out."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("dinoidd.")}
    return names - {unit(path), "__version__"}


@pytest.mark.parametrize("package", HOMES)
def test_imports__heavy_packages_stay_at_home(package: str) -> None:
    strangers = [
        shown(path)
        for path in FILES
        if any(name.split(".")[0] == package for name in imports(path))
        and not any(fnmatch(shown(path), home) for home in HOMES[package])
    ]
    assert strangers == []


def test_imports__models_need_torch_alone() -> None:
    for path in FILES:
        if unit(path) == "models":
            others = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
            # Triton, of two files, comes with torch where there are GPUs, and is done without elsewhere.
            assert others <= {"torch", "dinoidd", "triton"}, shown(path)


def test_imports__point_one_way() -> None:
    wrong = {
        shown(path): sorted(extra)
        for path in FILES
        if (allowed := ALLOWED.get(unit(path))) is not None
        and (extra := dinoidd_units(path) - allowed)
    }
    assert wrong == {}


def test_imports__inference_and_training_are_apart() -> None:
    for path in FILES:
        if unit(path) in ("inference", "training"):
            assert not dinoidd_units(path) & {"inference", "training"}, shown(path)


def test_imports__command_line_is_imported_by_nothing_below_it() -> None:
    users = [shown(p) for p in FILES if "cli" in dinoidd_units(p) and unit(p) not in COMMAND_LINE]
    assert users == []


def test_imports__jobs_are_short() -> None:
    for path in FILES:
        if unit(path) == "jobs":
            assert len(path.read_text().splitlines()) <= 60, shown(path)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def depth_first(
    graph: dict[str, set[str]], name: str, trail: list[str], done: set[str]
) -> Iterator[list[str]]:
    if name in trail:
        yield [*trail[trail.index(name) :], name]
    elif name not in done:
        done.add(name)
        for other in sorted(graph[name]):
            yield from depth_first(graph, other, [*trail, name], done)


def test_imports__modules_form_no_circle() -> None:
    modules = {module_name(path): path for path in FILES}
    graph = {
        name: {n for n in imports(path) if n in modules and n != name and not name.startswith(n)}
        for name, path in modules.items()
    }
    done: set[str] = set()
    circles = [c for name in sorted(graph) for c in depth_first(graph, name, [], done)]
    assert circles == []


TORCH_ALONE = """
import sys

ALLOWED = {"torch", "torchgen", "functorch", "typing_extensions", "dinoidd"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named '{name}' (blocked)", name=name)

sys.meta_path.insert(0, Blocker())
import torch
import dinoidd.models as models

models.meta_segmenter(models.preset("vit7b16"))
model = models.random_segmenter(models.preset("tiny"))
with torch.no_grad():
    (output,) = model(torch.zeros(1, 3, 64, 64))
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.semantic import certainty, class_scores
scores = class_scores(output.class_logits[0], output.mask_logits[0], (64, 64))
assert resized_argmax(scores, (50, 70)).shape == (50, 70)
assert certainty(scores).isfinite().all()
for name in ("numpy", "pyarrow", "PIL", "ray", "fsspec", "safetensors", "sympy"):
    assert name not in sys.modules, name
print("ran")
"""


def test_models__run_with_nothing_but_torch() -> None:
    command = [sys.executable, "-W", "ignore", "-c", TORCH_ALONE]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "ran", result.stderr[-2000:]


def test_extraction__imports_no_more_than_it_needs() -> None:
    """Tasks that read and write start with the first import, the model's actor with the second."""
    program = (
        "import sys; import dinoidd.train.ends, dinoidd.train.example_rows;"
        "assert 'torch' not in sys.modules; import dinoidd.train.stages;"
        "print([m for m in ('ray', 'scipy', 'torch.distributed.fsdp', 'torch.distributed.tensor',"
        " 'sympy', 'matplotlib', 'tensorboardX', 'duckdb') if m in sys.modules])"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]


def test_command_line__help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from dinoidd.cli import build_parser; build_parser(['segment']).format_help();"
        "print([m for m in ('torch', 'ray', 'pyarrow', 'numpy', 'duckdb') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]
