"""Class probabilities of every pixel at an image's original size."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.inference.predictor import Prediction, Predictor, Size
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.semantic import Certainty, certainty, class_scores

_LEAST = 1e-30  # of a score, so that a pixel that no query claims has equal shares, not 0/0


@torch.no_grad()
def predict_with_probabilities(
    predictor: Predictor, images_BHW3: np.ndarray, sizes: list[Size]
) -> list[tuple[Prediction, np.ndarray]]:
    """As `Predictor.predict`, with float32 [K, H, W] probabilities at each original size."""
    output = predictor.model(predictor.normalise(images_BHW3))[-1]
    results = []
    for logits, masks, size in zip(output.class_logits, output.mask_logits, sizes, strict=True):
        scores_KHW = class_scores(logits, masks, images_BHW3.shape[1:3])
        prediction = Prediction(
            classes=resized_argmax(scores_KHW, size).cpu().numpy(),
            certainty=Certainty(*certainty(scores_KHW).tolist()),
        )
        results.append((prediction, resized_probabilities(scores_KHW, size).cpu().numpy()))
    return results


def resized_probabilities(scores_KHW: Tensor, size: Size) -> Tensor:
    """Scores resized bilinearly and divided by their sum over classes, float32 [K, *size].

    Mask2Former's class scores are sums over queries, which overlap and leave gaps: they are no
    probabilities until they are divided. The highest one is where `resized_argmax` finds it, but for
    ties within rounding.
    """
    resized = F.interpolate(scores_KHW[None], size=size, mode="bilinear", align_corners=False)[0]
    resized += _LEAST
    return resized.div_(resized.sum(0))
