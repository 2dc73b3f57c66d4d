"""Class probabilities of every pixel at an image's original size."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.inference.predictor import Images, Prediction, Scorer, Size
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.semantic import Certainty

_LEAST = 1e-30  # of a score, so that a pixel that no query claims has equal shares, not 0/0


@torch.no_grad()
def predict_with_probabilities(
    scorer: Scorer, images: Images, sizes: Sequence[Size]
) -> list[tuple[Prediction, np.ndarray]]:
    """As `Scorer.predict`, with float32 [K, H, W] probabilities at each original size."""
    results = []
    for scored, size in zip(scorer.scored(images, sizes), sizes, strict=True):
        prediction = Prediction(
            classes=resized_argmax(scored.scores_Khw, size).cpu().numpy(),
            certainty=Certainty(*scored.certainty.tolist()),
        )
        probabilities = resized_probabilities(scored.scores_Khw, size).cpu().numpy()
        results.append((prediction, probabilities))
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
