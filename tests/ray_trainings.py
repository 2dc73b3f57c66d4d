"""Small trainings on Ray, for the tests."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from safetensors.numpy import load_file

from dinoidd.data.generate import generate_dataset
from dinoidd.train import driver
from dinoidd.training.config import LossConfig, OptimizerConfig, TrainConfig

EPOCHS = 6
TIMES = ("seconds", "train_seconds", "images_per_second", "data_wait_share", "peak_memory_bytes")


def make_scenes(folder: Path) -> Path:
    """12 training scenes and 5 to validate on."""
    generate_dataset(
        folder, images=17, size=(96, 64), splits=(("train", 0.7), ("val", 0.3)), workers=1
    )
    return folder


def small(data: Path | str, output: Path | str, **more: Any) -> TrainConfig:
    """A classifier on random weights: seconds."""
    settings: dict[str, Any] = {
        "preset": "tiny",
        "image_size": 64,
        "batch_size": 4,
        "epochs": EPOCHS,
        "threads": 2,
        "use_gpu": False,
        "loss": LossConfig(points=200),
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
    }
    return TrainConfig(data=str(data), output=str(output), **{**settings, **more})


def curve(output: Path | str) -> list[dict[str, Any]]:
    """The epochs of a run, without how long they took."""
    rows = [json.loads(line) for line in Path(output, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def weights(output: Path | str, name: str = "last") -> dict[str, np.ndarray]:
    """The trained tensors of a run."""
    tensors = load_file(Path(output, f"{name}.safetensors"))
    return {n: t for n, t in tensors.items() if not n.startswith("optimizer.")}


def furthest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def children(process: int) -> list[int]:
    """All processes below one of ours."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(after_name[1])
    found, fresh = [], [process]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        found += fresh
    return found


def train_workers(process: int | None = None) -> list[int]:
    """The processes of Ray that train for this one, or for another of ours."""
    named = []
    for child in children(process or os.getpid()):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"RayTrainWorker" in title:
            named.append(child)
    return named


def epochs_done(output: Path) -> int:
    """How many epochs a run has written."""
    file = output / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


@contextmanager
def killer(output: Path, epochs: int) -> Iterator[list[int]]:
    """Kills one training worker, once, as soon as that many epochs are written."""
    killed: list[int] = []

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            if epochs_done(output) >= epochs and (there := train_workers()):
                os.kill(there[0], 9)
                killed.append(there[0])
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield killed
    thread.join(timeout=120)


@contextmanager
def embedded_ray() -> Iterator[None]:
    """One Ray for the tests of a module."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("RAY_ADDRESS", raising=False)
        if ray.is_initialized():  # another module's, which was not set for short epochs
            ray.shutdown()
        driver.connect(None)
        yield
    ray.shutdown()
