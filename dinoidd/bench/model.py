"""How fast a model is on this machine: part by part, beside the machine's own peak, and beside the
reference's arrangement of the same arithmetic. Needs torch alone."""

import copy
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinoidd.bench.memory import peak_bytes
from dinoidd.bench.reference import arrange_as_reference, reference_pass
from dinoidd.checkpoint.load import random_weights
from dinoidd.errors import ConfigError
from dinoidd.inference.predictor import Size
from dinoidd.inference.source import DTYPES
from dinoidd.models import Segmenter, SegmenterConfig, preset
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.config import resized
from dinoidd.models.cost import measure_cost
from dinoidd.models.semantic import certainty, class_scores

PARTS = ("backbone", "adapter", "pixel_decoder", "query_decoder", "postprocess")
_MATMUL = {"cpu": 4096, "cuda": 8192}  # side of the square matrices whose product is the peak


@dataclass(frozen=True, kw_only=True)
class ModelBench:
    """What is measured."""

    preset: str = "vits16"
    classes: int = 26
    decoder_width: int | None = None  # None: the preset's
    image_size: int = 512
    original_size: Size = (1080, 1920)  # rows, columns of the classes
    batch_size: int = 8
    dtype: str = "float32"
    device: str = "cpu"
    compiled: bool = False
    baseline: bool = False
    repeats: int = 5
    seed: int = 0

    def config(self) -> SegmenterConfig:
        """Of the model. Raises ConfigError."""
        config = replace(preset(self.preset), image_size=self.image_size)
        width = {} if self.decoder_width is None else {"width": self.decoder_width}
        return resized(config, classes=self.classes, decoder=width)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The reference's arrangement, one image at a time."""

    dtype: str
    images_per_second: float
    speedup: float  # of ours over it
    agreement: float  # share of pixels with the same class; the weights are random


@dataclass(frozen=True, kw_only=True)
class ModelSpeed:
    """Medians over the repeats, which a first pass that warms up is no part of."""

    bench: ModelBench
    hardware: str
    threads: int
    images_per_second: float
    seconds: dict[str, float]  # of a batch, by part
    flops_per_image: int
    flops_by_part: dict[str, int]
    peak_tflops: float  # of a large matmul in the same dtype, in this run
    memory_bytes: int  # on a GPU what torch allocated at most, else of the whole process
    warmup_seconds: float  # of the first pass, with compilation where it was asked for
    baseline: Baseline | None = None

    @property
    def tflops(self) -> float:
        return self.flops_per_image * self.images_per_second / 1e12

    @property
    def share_of_peak(self) -> float:
        return self.tflops / self.peak_tflops

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"tflops": self.tflops, "share_of_peak": self.share_of_peak}


class _Clock:
    """Time between marks, when all that was asked of the device is done."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = (
            torch.cuda.synchronize if device.type == "cuda" else lambda: None
        )
        self.seconds: dict[str, float] = {}
        self._last = self._now()

    def _now(self) -> float:
        self._wait()
        return time.perf_counter()

    def mark(self, part: str) -> None:
        now = self._now()
        self.seconds[part] = now - self._last
        self._last = now


@torch.no_grad()
def measure_model(bench: ModelBench) -> ModelSpeed:
    """Time random weights on random images.

    Raises:
        ConfigError: an unknown preset or dtype, or sizes that cannot be.
    """
    contest = _Contest(bench)
    for _ in range(bench.repeats):  # in turn: what slows the machine down meets all of them
        contest.round()
    return contest.result()


class _Contest:
    """Ours, the reference's arrangement and the plain matmul, warm and ready to be timed in turn."""

    def __init__(self, bench: ModelBench) -> None:
        config = bench.config()
        self.bench, self.cost = bench, measure_cost(config)
        self.device, self.dtype = torch.device(bench.device), _dtype(bench.dtype)
        model = random_weights(config, self.dtype, bench.seed)
        self.reference = _reference(model, self.device) if bench.baseline else None
        self.model = model.to(self.device)
        torch.manual_seed(bench.seed)
        shape = (bench.batch_size, 3, bench.image_size, bench.image_size)
        self.images = torch.randn(shape).to(self.device, self.dtype)
        if bench.compiled:
            for part in self.model.children():
                part.compile(dynamic=False)
        self.ours: list[dict[str, float]] = []
        self.theirs: list[float] = []
        self.peaks: list[float] = []
        self._warm_up()

    def _warm_up(self) -> None:
        began = time.perf_counter()
        classes, _ = _pass(self.model, self.images, self.bench.original_size)
        self.warmup_seconds = time.perf_counter() - began
        if self.reference is not None:
            equal = classes[0].cpu() == self._reference_pass()[0].cpu()
            self.agreement = equal.float().mean().item()
        _matmul_tflops(self.device, self.dtype)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def round(self) -> None:
        self.peaks.append(_matmul_tflops(self.device, self.dtype))
        self.ours.append(_pass(self.model, self.images, self.bench.original_size)[1])
        if self.reference is not None:
            self.theirs.append(self._reference_pass()[1])

    def _reference_pass(self) -> tuple[Tensor, float]:
        assert self.reference is not None
        clock = _Clock(self.device)
        image = self.images[:1].to(self.reference.adapter.up.weight.dtype)
        classes = reference_pass(self.reference, image, self.bench.original_size)
        clock.mark("image")
        return classes, clock.seconds["image"]

    def result(self) -> ModelSpeed:
        batch = statistics.median(sum(seconds.values()) for seconds in self.ours)
        rate = self.bench.batch_size / batch
        return ModelSpeed(
            bench=self.bench,
            hardware=hardware(self.device),
            threads=torch.get_num_threads(),
            images_per_second=rate,
            seconds={p: statistics.median(s[p] for s in self.ours) for p in PARTS},
            flops_per_image=self.cost.flops_per_image,
            flops_by_part=self.cost.flops_by_part,
            peak_tflops=max(self.peaks),
            memory_bytes=_memory(self.device),
            warmup_seconds=self.warmup_seconds,
            baseline=self._baseline(rate),
        )

    def _baseline(self, rate: float) -> Baseline | None:
        if self.reference is None:
            return None
        their_rate = 1 / statistics.median(self.theirs)
        return Baseline(
            dtype=str(self.reference.adapter.up.weight.dtype).removeprefix("torch."),
            images_per_second=their_rate,
            speedup=rate / their_rate,
            agreement=self.agreement,
        )


def _reference(model: Segmenter, device: torch.device) -> Segmenter:
    """A copy that computes as the reference: all in float32 on a CPU, on a GPU only the decoders."""
    reference = copy.deepcopy(model)
    arrange_as_reference(reference)
    parts = (
        [reference.pixel_decoder, reference.query_decoder] if device.type == "cuda" else [reference]
    )
    for part in parts:
        part.float()
    return reference.to(device)


def _pass(model: Segmenter, images: Tensor, size: Size) -> tuple[list[Tensor], dict[str, float]]:
    """The classes [*size] of a batch, and the seconds of each part."""
    clock = _Clock(images.device)
    taken = model.backbone(images)
    clock.mark("backbone")
    features = model.adapter(images, taken)
    clock.mark("adapter")
    mask_features, scales = model.pixel_decoder(features)
    clock.mark("pixel_decoder")
    output = model.query_decoder(scales, mask_features)[-1]
    clock.mark("query_decoder")
    square = (images.shape[2], images.shape[3])
    classes = []
    for logits, masks in zip(output.class_logits, output.mask_logits, strict=True):
        scores_KHW = class_scores(logits, masks, square)
        certainty(scores_KHW)  # as `segment` does it
        classes.append(resized_argmax(scores_KHW, size))
    clock.mark("postprocess")
    return classes, clock.seconds


def _matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Of one product of large square matrices, the best of three."""
    side = _MATMUL[device.type]
    a, b = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(3):
        clock = _Clock(device)
        a @ b
        clock.mark("product")
        best = min(best, clock.seconds["product"])
    return 2 * side**3 / best / 1e12


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype '{name}': there are {', '.join(DTYPES)}")
    return DTYPES[name]


def hardware(device: torch.device) -> str:
    """What computes: the GPU's name, or the CPU's and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"


def _memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes()


def format_model(speed: ModelSpeed) -> str:
    """A table for people."""
    bench = speed.bench
    lines = [
        f"{bench.preset}, {bench.image_size}x{bench.image_size}, batch {bench.batch_size}, {bench.dtype}"
        f"{', compiled' if bench.compiled else ''}, {speed.hardware}, {speed.threads} threads",
        f"  {speed.images_per_second:.3g} images/s, {speed.tflops:.3g} TFLOP/s: "
        f"{speed.share_of_peak:.1%} of the {speed.peak_tflops:.3g} of a plain matmul in this run",
        f"  first pass {speed.warmup_seconds:.1f} s, memory {speed.memory_bytes / 1e9:.2f} GB",
        "  part              s/image   share   TFLOP/s",
    ]
    total = sum(speed.seconds.values())
    for part, seconds in speed.seconds.items():
        an_image = seconds / bench.batch_size
        flops = speed.flops_by_part.get(part)
        rate = f"{flops / an_image / 1e12:9.3f}" if flops else "        -"
        lines.append(f"  {part:15s} {an_image:9.4f}  {seconds / total:6.1%} {rate}")
    if speed.baseline is not None:
        base = speed.baseline
        lines.append(
            f"  the reference's arrangement ({base.dtype}, batch 1): {base.images_per_second:.3g} "
            f"images/s\n  ours is {base.speedup:.2f} times as fast; of an image's pixels "
            f"{base.agreement:.2%} are equal (random weights)"
        )
    return "\n".join(lines)
