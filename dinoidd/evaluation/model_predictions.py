"""Masks that a model draws while they are evaluated, from a checkpoint and a folder of images."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable
from dinoidd.data.image import decode_image
from dinoidd.data.listing import list_images
from dinoidd.errors import DinoiddError, ImageError
from dinoidd.evaluation.frames import Frame, frame_of
from dinoidd.evaluation.predictions import Opened
from dinoidd.inference.predictor import Predictor, pick_device
from dinoidd.inference.source import ModelSource
from dinoidd.storage import ObjectReader, StorageOptions

_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ModelPredictions:
    """A reference is an image's URI; the model is loaded once a process."""

    uri: str  # of the images, normalised
    source: ModelSource
    device: str = "auto"
    options: StorageOptions

    @property
    def table(self) -> ClassTable:
        return self.source.describe().table

    def listed(self) -> Iterator[tuple[Frame, str]]:
        for image in list_images(self.uri, self.options):
            yield frame_of(image.uri, self.uri), image.uri

    def unit(self, reference: str) -> Hashable:
        return None

    def place(self, reference: str) -> str:
        return reference

    def read(self, references: Sequence[str]) -> Iterator[Opened]:
        for uri in references:
            try:
                yield Image.fromarray(self._predict(uri))
            except DinoiddError as error:
                yield error

    def _predict(self, uri: str) -> np.ndarray:
        predictor = _predictor(self.source, pick_device(self.device))
        image = decode_image(ObjectReader(self.options).read(uri), max_pixels=_MAX_PIXELS)
        side = predictor.model.config.image_size
        prediction = predictor.predict(image.resized((side, side))[None], [image.size])[0]
        if not math.isfinite(prediction.certainty.confidence):
            raise ImageError("not_finite", "the model's output is not a number")
        return prediction.classes


@lru_cache(maxsize=1)
def _predictor(source: ModelSource, device: str) -> Predictor:
    return Predictor(source.load(), device)
