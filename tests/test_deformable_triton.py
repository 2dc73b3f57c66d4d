"""The GPU kernels of deformable attention against the plain version.

By Triton's interpreter on the CPU; on a GPU with -m gpu, where these files need torch, Triton and pytest
alone (--noconftest).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deformable_cases import (
    CASES,
    MODULE,
    Answers,
    Case,
    answers,
    check_operator,
    far_off,
    module_answers,
)

from dinoidd.models import deformable
from dinoidd.models.deformable import plain_attention

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# Where a point lies on a cell's centre to within rounding, both of two slopes are right.
KINKS = 1e-4
WIDE = Case(sizes=((32, 32),), queries=5376, width=128, points=4, batch=8, heads=16)
LARGE = {
    "adapter of vit7b16 at 512": WIDE,
    "adapter of vits16 at 512": replace(WIDE, width=12),
    "pixel decoder at 512": replace(WIDE, sizes=((16, 16), (32, 32), (64, 64))),
    "adapter at 896": replace(WIDE, sizes=((56, 56),), queries=16464, batch=1),
}


def same(fused: Answers, plain: Answers, tolerance: float) -> None:
    shares = far_off(fused, plain, tolerance)
    kinks = {"offsets", "query", "sampling_offsets.weight", "sampling_offsets.bias"}
    assert {n: s for n, s in shares.items() if s > (KINKS if n in kinks else 0)} == {}


def interpret(folder: Path, *arguments: str) -> dict[str, Answers]:
    """What the kernels answer by the interpreter, in a process of its own."""
    if sys.platform != "linux":
        pytest.skip("Triton is for Linux alone")
    file = folder / "answers.pt"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, str(ROOT / "tests" / "deformable_cases.py"), str(file), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return torch.load(file)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    return interpret(tmp_path_factory.mktemp("interpreted"))


@pytest.mark.parametrize("name", CASES)
def test_kernels__interpreted_are_the_plain_version(
    name: str, interpreted: dict[str, Answers]
) -> None:
    case = CASES[name]
    same(interpreted[name], answers(plain_attention, case), TOLERANCE[case.dtype])


def test_module__with_interpreted_kernels_is_the_same(interpreted: dict[str, Answers]) -> None:
    same(interpreted[MODULE], module_answers(), 1e-5)


@pytest.mark.slow  # imports torch's compiler
def test_module__with_interpreted_kernels_is_one_graph(tmp_path: Path) -> None:
    same(interpret(tmp_path, "compiled")[MODULE], module_answers(), 1e-5)


def test_module__takes_the_plain_version_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def plain(*args) -> torch.Tensor:
        calls.append(args)
        return plain_attention(*args)

    monkeypatch.setattr(deformable, "plain_attention", plain)
    module_answers()
    assert len(calls) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux alone")
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*CASES, *LARGE])
def test_kernels__on_a_gpu_are_the_plain_version(name: str, dtype: torch.dtype) -> None:
    case = replace((CASES | LARGE)[name], dtype=dtype)
    fused = answers(deformable.kernels.fused_attention, case, "cuda")
    # Places are rounded to a few 1e-6 of a cell on wide maps, and there are a hundred million numbers.
    tolerance = TOLERANCE[dtype] * (4 if name in LARGE else 1)
    same(fused, answers(plain_attention, case, "cuda"), tolerance)


@pytest.fixture
def plain_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Answers]:
    """Answers of the module without its kernels, on the GPU."""

    def run(autocast: bool) -> Answers:
        with monkeypatch.context() as patch, torch.autocast("cuda", torch.bfloat16, autocast):
            patch.setattr(deformable, "kernels", None)
            return module_answers("cuda")

    return run


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [False, True])
def test_module__on_a_gpu_is_the_plain_one(
    autocast: bool, plain_module: Callable[[bool], Answers]
) -> None:
    assert deformable.kernels.takes(torch.zeros(1, device="cuda"))
    with torch.autocast("cuda", torch.bfloat16, autocast):
        fused = module_answers("cuda")
    same(fused, plain_module(autocast), 2e-2 if autocast else 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [False, True])
def test_module__compiled_is_one_graph_and_the_plain_one(
    autocast: bool, plain_module: Callable[[bool], Answers]
) -> None:
    torch.compiler.reset()
    with torch.autocast("cuda", torch.bfloat16, autocast):
        fused = module_answers("cuda", lambda module: torch.compile(module, fullgraph=True))
    same(fused, plain_module(autocast), 2e-2 if autocast else 1e-5)


@pytest.mark.gpu
def test_kernels__obey_the_rules_of_an_operator() -> None:
    check_operator("cuda")


@pytest.mark.gpu
def test_kernels__replay_in_a_cuda_graph() -> None:
    attend = deformable.kernels.fused_attention
    value = torch.randn(1, 35, 2, 16, device="cuda")
    offsets, logits = torch.randn(1, 9, 16, device="cuda"), torch.randn(1, 9, 8, device="cuda")
    reference = torch.rand(9, 2, device="cuda")
    attend(value, offsets, logits, reference, [(5, 7)])  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attend(value, offsets, logits, reference, [(5, 7)])
    value.normal_()
    graph.replay()
    torch.testing.assert_close(out, plain_attention(value, offsets, logits, reference, [(5, 7)]))
