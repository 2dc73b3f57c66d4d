"""Masks that a model draws while they are evaluated, from a checkpoint and a folder of images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from dinoidd.classes import ClassTable
from dinoidd.config import Windows
from dinoidd.data.image import decode_image
from dinoidd.data.listing import list_images
from dinoidd.errors import CheckpointError, ImageError
from dinoidd.evaluation.predictions import FilePredictions, Listed
from dinoidd.inference.device import pick_device
from dinoidd.inference.predictor import Prediction, Scorer
from dinoidd.inference.scorer import make_scorer
from dinoidd.inference.source import ModelSource
from dinoidd.inference.windows import Framing
from dinoidd.storage import shown

_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ModelPredictions(FilePredictions):
    """The files are images, one a forward; the model is loaded once a process."""

    source: ModelSource
    device: str = "auto"
    windows: Windows | None = None

    @property
    def title(self) -> str:
        assert self.source.checkpoint is not None
        how = "" if self.windows is None else f", windows of {self.windows.size}"
        ways = len(self.windows.scales) * (1 + self.windows.flip) if self.windows else 1
        how += f", mean of {ways} views" if ways > 1 else ""
        return f"{shown(self.source.checkpoint)} ({self.source.dtype}{how}) on {shown(self.uri)}"

    @property
    def table(self) -> ClassTable:
        return self.source.describe().table

    def listed(self) -> Iterator[Listed]:
        yield from (self._listed(image.uri) for image in list_images(self.uri, self.options))

    def open(self, data: bytes) -> np.ndarray:
        scorer, framing = _predictor(self.source, pick_device(self.device), self.windows)
        prediction = _predict(scorer, framing, data)
        if not math.isfinite(prediction.certainty.confidence):
            what = (
                "the model's output is not a number: use --dtype float32, or check the checkpoint"
            )
            raise ImageError("not_finite", what)
        return prediction.classes


def _predict(scorer: Scorer, framing: Framing, data: bytes) -> Prediction:
    image = decode_image(data, max_pixels=_MAX_PIXELS)
    frames = framing.frames(image, _MAX_PIXELS)
    try:
        return scorer.predict(framing.batch([frames]), [image.size])[0]
    except torch.OutOfMemoryError as error:
        if scorer.device.type == "cuda":
            torch.cuda.empty_cache()
        reason = str(error).split(". ")[0]
        what = f"one image does not fit the GPU's memory ({reason}): try --device cpu"
        raise ImageError("out_of_memory", what) from error


@lru_cache(maxsize=1)
def _predictor(source: ModelSource, device: str, windows: Windows | None) -> tuple[Scorer, Framing]:
    model = source.load()
    framing = Framing(image_size=model.config.image_size, windows=windows)
    try:
        return make_scorer(model, device, windows), framing
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise CheckpointError(
            f"the model does not fit the GPU's memory ({reason}): free it, or use --dtype bfloat16 "
            "or --device cpu"
        ) from error
