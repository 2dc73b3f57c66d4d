"""The network as one file that needs no dinoidd: a torch.export program, or ONNX.

It takes pixels and gives class scores, at one size and batch size, in float32. What was written is read
back, run, and held against the model it was made from, on the CPU.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinoidd.errors import ConfigError, OutputError
from dinoidd.models import Segmenter
from dinoidd.models.pixels import PixelNorm
from dinoidd.models.positions import sine_positions
from dinoidd.models.scores import image_scores

INPUT, OUTPUT = "pixels", "scores"
# Loggers that tell of every constant they do not fold, and of packages that are not needed here.
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")
_BLOCK = 16  # pixels of a patch


class ScoreMap(nn.Module):
    """What is exported: uint8 RGB pixels [B, S, S, 3] to class scores [B, K, S, S], float32 in 0..1.

    The class of a pixel is where its score is largest.
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model
        self._normalise = PixelNorm(model.config, torch.device("cpu"))

    def forward(self, pixels: Tensor) -> Tensor:
        (output,) = self.model(self._normalise(pixels))
        size = (pixels.shape[1], pixels.shape[2])
        return torch.stack([image_scores(output, i, size) for i in range(len(pixels))])


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """How far the file's answer is from the model's, on one drawn batch."""

    difference: float  # the largest one of a score; NaN where one of them is no number
    equal_pixels: float  # share of pixels of the same class
    classes: int  # that the model sees in the batch: of one class, equal pixels say nothing

    def passes(self, tolerance: float) -> bool:
        return self.difference <= tolerance  # False for NaN


def export_model(
    model: Segmenter, path: Path, *, form: str, image_size: int, batch_size: int = 1
) -> ExportCheck:
    """Write the model, in float32 on the CPU, and compare what was written with it.

    Args:
        form: `torch` (a torch.export program) or `onnx`.
        image_size: side of the square, a multiple of 32.

    Raises:
        ConfigError: ONNX needs packages that are not installed.
        OutputError: the file cannot be written.
    """
    if form == "onnx":
        _import_onnx()  # told now, not after minutes of tracing
    pixels = drawn_pixels(batch_size, image_size)
    whole = ScoreMap(model).eval().requires_grad_(False)
    with torch.no_grad():
        expected = whole(pixels)
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        run = (_as_torch if form == "torch" else _as_onnx)(_traced(whole, pixels), unfinished)
        check = compared(run(pixels), expected)
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return check


def compared(found: Tensor, expected: Tensor) -> ExportCheck:
    """Scores [B, K, S, S] of the file and of the model."""
    ours, theirs = found.argmax(1), expected.argmax(1)
    return ExportCheck(
        difference=(found - expected).abs().max().item(),
        equal_pixels=(ours == theirs).double().mean().item(),
        classes=len(theirs.unique()),
    )


def drawn_pixels(batch: int, side: int) -> Tensor:
    """Images of coloured squares with noise, uint8 [batch, side, side, 3]."""
    draw = torch.Generator().manual_seed(0)
    colors = torch.rand(batch, 3, side // _BLOCK, side // _BLOCK, generator=draw) * 220
    image = F.interpolate(colors, size=(side, side)).permute(0, 2, 3, 1)
    return (image + torch.rand(image.shape, generator=draw) * 35).to(torch.uint8).contiguous()


def _traced(whole: ScoreMap, pixels: Tensor) -> torch.export.ExportedProgram:
    with _tables_for_tracing(whole.model, pixels.shape[1] // _BLOCK), _silence():
        return torch.export.export(whole, (pixels,))


@contextmanager
def _tables_for_tracing(model: Segmenter, side: int) -> Iterator[None]:
    """RoPE's tables are made before, since a traced tensor cannot be known again by its address; sine
    positions within, and forgotten, since what tracing leaves there are no numbers."""
    rope = model.backbone.rope_embed
    tables = rope.tables(side, side)
    rope.tables = lambda *_: tables  # type: ignore[method-assign]
    sine_positions.cache_clear()
    try:
        yield
    finally:
        sine_positions.cache_clear()
        del rope.tables  # the class's own shows again


@contextmanager
def _silence() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _as_torch(program: torch.export.ExportedProgram, path: Path) -> Callable[[Tensor], Tensor]:
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _import_onnx() -> Any:
    """The runtime; torch's exporter needs onnxscript besides."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--format onnx: {error}; pip install 'dinoidd[onnx]'") from error
    return onnxruntime


def _as_onnx(program: torch.export.ExportedProgram, path: Path) -> Callable[[Tensor], Tensor]:
    onnxruntime = _import_onnx()
    with _silence():
        onnx = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    assert onnx is not None
    onnx.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])
