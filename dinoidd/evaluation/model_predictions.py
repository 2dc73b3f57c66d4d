"""Masks that a model draws while they are evaluated, from a checkpoint and a folder of images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from dinoidd.classes import ClassTable
from dinoidd.data.image import decode_image
from dinoidd.data.listing import list_images
from dinoidd.errors import CheckpointError, ImageError
from dinoidd.evaluation.predictions import FilePredictions, Listed
from dinoidd.inference.predictor import Prediction, Predictor, pick_device
from dinoidd.inference.source import ModelSource
from dinoidd.storage import shown

_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ModelPredictions(FilePredictions):
    """The files are images, one a forward; the model is loaded once a process."""

    source: ModelSource
    device: str = "auto"

    @property
    def title(self) -> str:
        assert self.source.checkpoint is not None
        return f"{shown(self.source.checkpoint)} ({self.source.dtype}) on {shown(self.uri)}"

    @property
    def table(self) -> ClassTable:
        return self.source.describe().table

    def listed(self) -> Iterator[Listed]:
        yield from (self._listed(image.uri) for image in list_images(self.uri, self.options))

    def open(self, data: bytes) -> np.ndarray:
        predictor = _predictor(self.source, pick_device(self.device))
        prediction = _predict(predictor, data)
        if not math.isfinite(prediction.certainty.confidence):
            what = (
                "the model's output is not a number: use --dtype float32, or check the checkpoint"
            )
            raise ImageError("not_finite", what)
        return prediction.classes


def _predict(predictor: Predictor, data: bytes) -> Prediction:
    image = decode_image(data, max_pixels=_MAX_PIXELS)
    side = predictor.model.config.image_size
    try:
        return predictor.predict(image.resized((side, side))[None], [image.size])[0]
    except torch.OutOfMemoryError as error:
        if predictor.device.type == "cuda":
            torch.cuda.empty_cache()
        reason = str(error).split(". ")[0]
        what = f"one image does not fit the GPU's memory ({reason}): try --device cpu"
        raise ImageError("out_of_memory", what) from error


@lru_cache(maxsize=1)
def _predictor(source: ModelSource, device: str) -> Predictor:
    model = source.load()
    try:
        return Predictor(model, device)
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise CheckpointError(
            f"the model does not fit the GPU's memory ({reason}): free it, or use --dtype bfloat16 "
            "or --device cpu"
        ) from error
