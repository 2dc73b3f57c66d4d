"""What computes, and how fast it can at best."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

_SIDE = {"cpu": 4096, "cuda": 8192}  # of the square matrices whose product is the peak
_TRIES = 3


class Clock:
    """Seconds between marks, when all that was asked of the device is done."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = (
            torch.cuda.synchronize if device.type == "cuda" else lambda: None
        )
        self.seconds: dict[str, float] = {}
        self._last = self._now()

    def _now(self) -> float:
        self._wait()
        return time.perf_counter()

    def mark(self, part: str) -> float:
        """The time since the last mark, kept under a name."""
        now = self._now()
        self.seconds[part] = now - self._last
        self._last = now
        return self.seconds[part]


def hardware(device: torch.device) -> str:
    """The GPU's name, or the CPU's and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"


def matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Of a product of large square matrices of normal numbers, the best of three."""
    side = _SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    best = float("inf")
    for _ in range(_TRIES):
        clock = Clock(device)
        a @ b
        best = min(best, clock.mark("product"))
    return 2 * side**3 / best / 1e12
