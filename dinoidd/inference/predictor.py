"""Images in, classes out: normalise, forward, and resize back, all on the model's device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dinoidd.models import Segmenter
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.pixels import PixelNorm
from dinoidd.models.semantic import Certainty, certainty, class_scores

Size = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Prediction:
    """One image's classes [H, W] uint8 at its original size, and how sure the model was.

    NaN in `certainty` means that the model's output was not a number; the classes are worthless then.
    """

    classes: np.ndarray
    certainty: Certainty


def pick_device(name: str = "auto") -> str:
    """`cuda` or `cpu`; `auto` is the GPU where this machine has one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


class Predictor:
    """Whole-image inference: the image comes resized to the model's square, the answer goes back to
    the original size by bilinear resizing of the class scores."""

    def __init__(self, model: Segmenter, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.dtype = model.query_decoder.classifier.weight.dtype
        self._normalise = PixelNorm(model.config, self.device)

    @torch.no_grad()
    def predict(self, images_BHW3: np.ndarray, sizes: list[Size]) -> list[Prediction]:
        """Segment a batch.

        Args:
            images_BHW3: uint8, RGB, all of one size that is a multiple of 32.
            sizes: each image's original rows and columns.
        """
        output = self.model(self.normalise(images_BHW3))[-1]
        results = []
        for logits, masks, size in zip(output.class_logits, output.mask_logits, sizes, strict=True):
            scores_KHW = class_scores(logits, masks, images_BHW3.shape[1:3])
            results.append((resized_argmax(scores_KHW, size), certainty(scores_KHW)))
        return [_to_host(classes, means) for classes, means in results]

    def normalise(self, images_BHW3: np.ndarray) -> Tensor:
        """uint8 images as the network wants them: [B, 3, H, W] in the model's dtype."""
        # torch warns of read-only arrays, which is what Ray hands out; the tensor is never written to
        images = torch.from_numpy(
            images_BHW3 if images_BHW3.flags.writeable else images_BHW3.copy()
        )
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        return self._normalise(images).to(self.dtype)


def _to_host(classes: Tensor, means: Tensor) -> Prediction:
    return Prediction(classes=classes.cpu().numpy(), certainty=Certainty(*means.tolist()))
