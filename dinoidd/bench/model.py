"""How fast a model is on this machine: from pixels to classes at the images' own size, part by part,
beside the machine's own peak and the reference's arrangement. Needs no weights, images or Ray."""

import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinoidd.bench.drawn_weights import drawn_segmenter, spread_classes
from dinoidd.bench.machine import Clock, hardware, matmul_tflops
from dinoidd.bench.memory import peak_bytes
from dinoidd.bench.reference import arrange_as_reference, reference_pass
from dinoidd.checkpoint.load import cast
from dinoidd.inference.dtype import DTYPES, in_dtype, pick_dtype
from dinoidd.inference.export import drawn_pixels
from dinoidd.inference.predictor import Predictor, Size
from dinoidd.models import Segmenter, SegmenterConfig, preset
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.config import resized
from dinoidd.models.cost import measure_cost
from dinoidd.models.pixels import PixelNorm
from dinoidd.models.scores import image_scores
from dinoidd.models.semantic import certainty


@dataclass(frozen=True, kw_only=True)
class ModelBench:
    """What is measured."""

    preset: str = "vits16"
    classes: int = 26
    decoder_width: int | None = None  # None: the preset's
    image_size: int = 512
    original_size: Size = (1080, 1920)  # rows, columns of the classes
    batch_size: int = 8
    dtype: str = "float32"  # a name of `DTYPES`, or auto
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

    images_per_second: float
    speedup: float  # of ours over it
    agreement: float | None  # share of pixels with the same class; None unless all is float32
    classes_seen: int  # in the image that they agree on


@dataclass(frozen=True, kw_only=True)
class ModelSpeed:
    """Medians over the repeats, which a first pass that warms up is no part of; the peak is the best."""

    bench: ModelBench
    hardware: str
    torch: str
    threads: int
    images_per_second: float  # uint8 images in, classes out, both on the host
    slowest: float  # of the repeats, images/s: what else the machine did
    fastest: float
    seconds: dict[str, float]  # of a batch, by part, each waited for
    flops_per_image: int  # of the network as published; ours saves some
    flops_by_part: dict[str, int]
    peak_tflops: float  # of a large matmul in the same dtype (8 bits: in bfloat16), in this run
    memory_bytes: int  # on a GPU what torch allocated at most, else of the whole process
    warmup_seconds: float  # of the first batch, with compilation where it was asked for
    baseline: Baseline | None = None

    @property
    def tflops(self) -> float:
        return self.flops_per_image * self.images_per_second / 1e12

    @property
    def share_of_peak(self) -> float:
        return self.tflops / self.peak_tflops

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"tflops": self.tflops, "share_of_peak": self.share_of_peak}


@torch.no_grad()
def measure_model(bench: ModelBench) -> ModelSpeed:
    """Time drawn weights on drawn images.

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
        config, self.device = bench.config(), torch.device(bench.device)
        self.bench = replace(bench, dtype=pick_dtype(bench.dtype, bench.device, config))
        self.dtype = DTYPES[self.bench.dtype]
        self.cost = measure_cost(config)
        self.images = drawn_pixels(bench.batch_size, bench.image_size).numpy()
        self.sizes = [bench.original_size] * bench.batch_size
        self.ours: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.theirs: list[float] = []
        self.peaks: list[float] = []
        self._prepare_ours(config)
        if bench.baseline:
            self._prepare_theirs(config)
        matmul_tflops(self.device, self.dtype)

    def _prepare_ours(self, config: SegmenterConfig) -> None:
        drawn = self._drawn(config)
        compiled = self.bench.batch_size if self.bench.compiled else None
        self.predictor = Predictor(
            in_dtype(drawn, self.bench.dtype), self.device, compiled_batch=compiled
        )
        clock = Clock(self.device)
        self.classes = self.predictor.predict(self.images, self.sizes)[0].classes
        self.warmup_seconds = clock.mark("warm-up")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.predictor.predict(self.images, self.sizes)
        self.memory = (
            torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_bytes()
        )

    def _drawn(self, config: SegmenterConfig) -> Segmenter:
        model = drawn_segmenter(config, self.dtype, self.device, self.bench.seed)
        pixels = torch.from_numpy(self.images[:1]).to(self.device)
        spread_classes(model, PixelNorm(config, self.device)(pixels).to(self.dtype))
        return model

    def _prepare_theirs(self, config: SegmenterConfig) -> None:
        """All in float32 on a CPU, on a GPU only the decoders."""
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.reference = cast(self._drawn(config), dtype)
        arrange_as_reference(self.reference)
        for part in (self.reference.pixel_decoder, self.reference.query_decoder):
            part.float()
        equal = self.classes == self._reference_pass()[0].numpy()
        # Drawn queries are so alike that spreading their classes spreads rounding too.
        self.agreement = float(equal.mean()) if self.dtype == dtype == torch.float32 else None

    def round(self) -> None:
        self.peaks.append(matmul_tflops(self.device, self.dtype))
        clock = Clock(self.device)
        self.predictor.predict(self.images, self.sizes)
        self.ours.append(clock.mark("batch"))
        self.parts.append(
            timed_parts(self.predictor, self.predictor.upload(self.images), self.sizes)
        )
        if self.bench.baseline:
            self.theirs.append(self._reference_pass()[1])

    def _reference_pass(self) -> tuple[Tensor, float]:
        clock = Clock(self.device)
        image = self.predictor.normalise(self.images[:1]).to(self.reference.backbone.cls_token)
        classes = reference_pass(self.reference, image, self.bench.original_size)
        return classes, clock.mark("image")

    def result(self) -> ModelSpeed:
        rate = self.bench.batch_size / statistics.median(self.ours)
        return ModelSpeed(
            bench=self.bench,
            hardware=hardware(self.device),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            images_per_second=rate,
            slowest=self.bench.batch_size / max(self.ours),
            fastest=self.bench.batch_size / min(self.ours),
            seconds={n: statistics.median(s[n] for s in self.parts) for n in self.parts[0]},
            flops_per_image=self.cost.flops_per_image,
            flops_by_part=self.cost.flops_by_part,
            peak_tflops=max(self.peaks),
            memory_bytes=self.memory,
            warmup_seconds=self.warmup_seconds,
            baseline=self._baseline(rate),
        )

    def _baseline(self, rate: float) -> Baseline | None:
        if not self.theirs:
            return None
        theirs = 1 / statistics.median(self.theirs)
        return Baseline(
            images_per_second=theirs,
            speedup=rate / theirs,
            agreement=self.agreement,
            classes_seen=len(np.unique(self.classes)),
        )


def timed_parts(predictor: Predictor, pixels_BHW3: Tensor, sizes: list[Size]) -> dict[str, float]:
    """The seconds of each part of `Predictor.predict`, with a wait after each."""
    model: Segmenter = predictor.model
    clock = Clock(predictor.device)
    images = predictor.normalised(pixels_BHW3)
    taken = model.backbone(images)
    clock.mark("backbone")
    if model.config.head == "linear":
        grid = (images.shape[2] // 16, images.shape[3] // 16)
        output = model.linear_head([patches for patches, _ in taken], grid)
        clock.mark("linear_head")
    else:
        features = model.adapter(images, taken)
        clock.mark("adapter")
        mask_features, scales = model.pixel_decoder(features)
        clock.mark("pixel_decoder")
        output = model.query_decoder(scales, mask_features)[-1]
        clock.mark("query_decoder")
    square = (images.shape[2], images.shape[3])
    for i, size in enumerate(sizes):
        scores_KHW = image_scores(output, i, square)
        certainty(scores_KHW)
        resized_argmax(scores_KHW, size).cpu()
    clock.mark("postprocess")
    return clock.seconds


def format_model(speed: ModelSpeed) -> str:
    """A table for people."""
    bench = speed.bench
    rows, columns = bench.original_size
    lines = [
        f"{bench.preset}, {bench.image_size}x{bench.image_size}, batch {bench.batch_size}, {bench.dtype}"
        f"{', compiled' if bench.compiled else ''}; classes at {columns}x{rows}",
        f"  {speed.hardware}, {speed.threads} threads, torch {speed.torch}",
        f"  {speed.images_per_second:.3g} images/s ({speed.slowest:.3g} to {speed.fastest:.3g} in "
        f"{bench.repeats} passes), {speed.tflops:.3g} TFLOP/s: "
        f"{speed.share_of_peak:.1%} of the {speed.peak_tflops:.3g} of a plain matmul in this run",
        f"  first batch {speed.warmup_seconds:.1f} s, memory {speed.memory_bytes / 1e9:.2f} GB",
        "  part              s/image   share   TFLOP/s",
        *_part_lines(speed),
    ]
    if speed.baseline is not None:
        base = speed.baseline
        lines += [
            f"  the reference's arrangement, one image at a time: {base.images_per_second:.3g} images/s",
            f"  ours is {base.speedup:.2f} times as fast; {_agreement(base)}",
        ]
    return "\n".join(lines)


def _agreement(base: Baseline) -> str:
    if base.agreement is None:
        return "what the dtype changes: `dinoidd bench dtypes`, with trained weights"
    seen = f"drawn weights, {base.classes_seen} classes"
    return f"of an image's pixels {base.agreement:.2%} have the same class ({seen})"


def _part_lines(speed: ModelSpeed) -> list[str]:
    total, lines = sum(speed.seconds.values()), []
    for part, seconds in speed.seconds.items():
        an_image = seconds / speed.bench.batch_size
        flops = speed.flops_by_part.get(part)
        rate = f"{flops / an_image / 1e12:9.3f}" if flops else "        -"
        lines.append(f"  {part:15s} {an_image:9.4f}  {seconds / total:6.1%} {rate}")
    return lines
