"""Loading and converting hold every weight once: the peak is measured in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import published_states

from dinoidd.models import SegmenterConfig, meta_segmenter, preset
from dinoidd.models.config import resized

LIMIT = 1.2  # of the final size
DECODER = {"width": 512, "pixel_layers": 2, "query_layers": 3}
PROGRAM = """
import gc, json, sys
from pathlib import Path
import torch
from dinoidd.checkpoint.file import load_checkpoint, save_checkpoint
from dinoidd.checkpoint.load import load_published
from dinoidd.classes import IDD
from dinoidd.models import preset
from dinoidd.models.config import resized

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

task, folder, dtype = sys.argv[1], Path(sys.argv[2]), getattr(torch, sys.argv[3])
config = resized(preset("vitb16"), classes=26, decoder=json.loads(sys.argv[4]))
gc.collect()
before = peak()
if task == "convert":
    model = load_published(config, folder / "backbone.pth", folder / "head.pth", dtype=dtype)
    save_checkpoint(model, IDD, folder / "converted.safetensors")
else:
    model, _ = load_checkpoint(folder / "converted.safetensors", dtype)
size = sum(t.nbytes for t in model.state_dict().values())
print(json.dumps({"size": size, "peak": peak() - before}))
"""


def config() -> SegmenterConfig:
    return resized(preset("vitb16"), classes=26, decoder=DECODER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published files of 520 MB in float32, all ones; half as large in bfloat16."""
    folder = tmp_path_factory.mktemp("large")
    model = meta_segmenter(config())
    ones = {n: torch.ones_like(t, device="cpu") for n, t in model.state_dict().items()}
    model.load_state_dict(ones, assign=True)
    for name, state in zip(("backbone", "head"), published_states(model), strict=True):
        torch.save(state, folder / f"{name}.pth")
    return folder


def measured(task: str, folder: Path, dtype: str) -> float:
    """The peak over the size of the model's weights."""
    command = [sys.executable, "-c", PROGRAM, task, str(folder), dtype, json.dumps(DECODER)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers = json.loads(result.stdout)
    assert numbers["size"] > 200e6
    return numbers["peak"] / numbers["size"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory__convert_and_load(folder: Path) -> None:
    peaks = {task: measured(task, folder, "bfloat16") for task in ("convert", "load")}
    assert max(peaks.values()) < LIMIT, peaks
    assert min(peaks.values()) > 0.9, peaks
