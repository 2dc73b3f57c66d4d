"""A model that takes its time and does nothing, for a whole job as its users start it."""

import time
from dataclasses import dataclass

from torch import Tensor

from dinoidd.inference.dtype import DTYPES
from dinoidd.inference.source import ModelSource
from dinoidd.models import Segmenter
from dinoidd.models.config import SegmenterConfig
from dinoidd.models.query_decoder import QueryOutput


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
