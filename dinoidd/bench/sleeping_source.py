"""A model that takes its time and does nothing, for a whole job as its users start it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dinoidd.config import Windows
from dinoidd.inference.dtype import DTYPES
from dinoidd.inference.predictor import Images, Prediction, Scored, Scorer, Size
from dinoidd.inference.source import ModelSource
from dinoidd.models import Segmenter
from dinoidd.models.config import SegmenterConfig
from dinoidd.models.query_decoder import QueryOutput
from dinoidd.models.semantic import Certainty


@dataclass(frozen=True, kw_only=True)
class SleepingSource(ModelSource):
    """`preset` gives the sizes of a model that sleeps instead of working."""

    milliseconds: float = 5.0  # an image

    def load(self) -> Segmenter:
        model = SleepingSegmenter(self.describe().config, self.milliseconds)
        return model.to(DTYPES[self.dtype]).eval()


class SleepingSegmenter(Segmenter):
    """Answers class 0 for the upper half of every image and class 1 for the lower one."""

    def __init__(self, config: SegmenterConfig, milliseconds: float) -> None:
        super().__init__(config)
        self._seconds = milliseconds / 1000

    def forward(self, image_B3HW: Tensor, every_layer: bool = False) -> list[QueryOutput]:
        """Two queries, sure of themselves, for images of any content."""
        batch, _, height, width = image_B3HW.shape
        time.sleep(self._seconds * batch)
        class_logits = image_B3HW.new_full((batch, 2, self.config.classes + 1), -9.0)
        class_logits[:, [0, 1], [0, 1]] = 9.0
        mask_logits = image_B3HW.new_full((batch, 2, height // 4, width // 4), -9.0)
        mask_logits[:, 0, : height // 8] = 9.0
        mask_logits[:, 1, height // 8 :] = 9.0
        queries = image_B3HW.new_zeros((batch, 2, 1))
        return [QueryOutput(class_logits, mask_logits, queries)]


@dataclass(frozen=True, kw_only=True)
class ElsewhereSource(SleepingSource):
    """A model that works elsewhere, as on a GPU: classes at the original size take no core either."""

    def scorer(
        self,
        model: Segmenter,
        device: str,
        windows: Windows | None,
        batch_size: int,
        compiled: bool = False,
    ) -> Scorer:
        return ElsewhereScorer(self.milliseconds)


class ElsewhereScorer:
    """Class 0 for the upper half of every image and class 1 for the lower one, after a while."""

    device = torch.device("cpu")

    def __init__(self, milliseconds: float) -> None:
        self._seconds = milliseconds / 1000

    def scored(self, images: Images, sizes: Sequence[Size]) -> Iterator[Scored]:
        raise NotImplementedError("there are no scores where nothing is computed")

    def predict(self, images: Images, sizes: Sequence[Size]) -> list[Prediction]:
        time.sleep(self._seconds * len(sizes))
        return [Prediction(_halves(size), Certainty(1.0, 0.0, 1.0)) for size in sizes]


def _halves(size: Size) -> np.ndarray:
    classes_HW = np.zeros(size, np.uint8)
    classes_HW[size[0] // 2 :] = 1
    return classes_HW
