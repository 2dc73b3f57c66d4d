"""The GPU kernel of resized argmax, by Triton's interpreter and on a GPU, against the plain version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dinoidd.models import kernels
from dinoidd.models.argmax import plain_resized_argmax, resized_argmax

ROOT = Path(__file__).resolve().parents[1]
SIZES = [(40, 60), (9, 7), (48, 64), (1, 1)]
_INTERPRETED = """
import sys, torch
from dinoidd.models.argmax_triton import resized_argmax
scores, sizes = torch.load(sys.argv[1])
torch.save([resized_argmax(scores, size) for size in sizes], sys.argv[1])
"""


def scores() -> torch.Tensor:
    drawn = torch.rand(5, 24, 32, generator=torch.Generator().manual_seed(0))
    drawn[2, 3, 4] = torch.nan
    return drawn


def check(found: list[torch.Tensor], device: str = "cpu") -> None:
    for classes, size in zip(found, SIZES, strict=True):
        expected = plain_resized_argmax(scores().to(device), size)
        classes = classes.to(device)
        assert classes.dtype == torch.uint8
        assert classes.shape == size
        # What is no number may spread to a neighbour of weight 0; rounding decides between equals.
        numbers = expected != 5
        assert (classes == expected)[numbers].float().mean() > 0.999
        assert not (classes == 5)[numbers].any()
    assert (found[0] == 5).any()


def test_kernel__interpreted_is_the_plain_version(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("Triton is for Linux alone")
    file = tmp_path / "scores.pt"
    torch.save((scores(), SIZES), file)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", _INTERPRETED, str(file)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    check(torch.load(file))


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux alone")
def test_kernels__that_do_not_run_are_told(monkeypatch, caplog) -> None:
    from dinoidd.models import argmax_triton

    monkeypatch.setattr(kernels, "gpu_kernels", lambda name: argmax_triton)
    try:
        assert not kernels.run_on(torch.device("cpu"))  # not interpreted
    finally:
        kernels.run_on.cache_clear()
    (record,) = caplog.records
    told = "the model runs in plain torch, which is slower: Triton's kernels do not run on cpu:"
    assert record.getMessage().startswith(told)


@pytest.mark.gpu
def test_kernel__on_a_gpu_is_the_plain_version() -> None:
    check([resized_argmax(scores().cuda(), size) for size in SIZES], "cuda")
