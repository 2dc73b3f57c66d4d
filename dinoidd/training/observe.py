"""What the frozen network sees in images, once and for all."""

import numpy as np
import torch
from torch import Tensor

from dinoidd.models import Segmenter
from dinoidd.models.query_decoder import QueryOutput
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import TrainConfig
from dinoidd.training.losses import make_criterion
from dinoidd.training.observation import Observation
from dinoidd.training.precision import network_dtype
from dinoidd.training.step import NetworkPass, points_of

_LARGEST_HALF = 65_504.0  # float16 has no larger number, and infinity times 0 is none


@torch.no_grad()
def observe(
    model: Segmenter, batch: ImageBatch, config: TrainConfig, *, validation: bool
) -> list[Observation]:
    """Run the network over images, on the model's device, and keep what the classifier needs.

    Args:
        model: prepared by `dinoidd.training.prepare.prepare`, for the classifier's training.
        validation: keep masks, label map and image too, to be judged by.
    """
    device = model.query_decoder.classifier.weight.device
    exact = network_dtype(config, device) == torch.float32
    criterion = make_criterion(config, model.config.classes)
    outputs = NetworkPass(model, config, device)(batch.images_BSS3)
    points = points_of(batch, config, validation, device)
    labels_BSS = torch.tensor(batch.labels_BSS, device=device)
    observations = []
    for i, (key, view) in enumerate(zip(batch.keys, batch.views, strict=True)):
        masks = [output.mask_logits[i] for output in outputs]
        arrays = criterion.observe(masks, labels_BSS[i], points[i], exact)
        arrays["queries_LQC"] = _stored(torch.stack([o.queries[i] for o in outputs]), exact)
        if validation:
            arrays |= _judged(outputs[-1], batch, i, exact)
        observations.append(Observation(key=key, view=view, **arrays))
    return observations


def _stored(queries: Tensor, exact: bool) -> np.ndarray:
    """float32, or bfloat16's bits: what autocast hands to the classifier anyway."""
    if exact:
        return queries.float().cpu().numpy()
    return queries.bfloat16().cpu().view(torch.int16).numpy().view(np.uint16)


def _judged(output: QueryOutput, batch: ImageBatch, i: int, exact: bool) -> dict[str, np.ndarray]:
    masks = output.mask_logits[i].float()
    if not exact:
        masks = masks.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
    return {
        "mask_logits_Qhw": masks.cpu().numpy(),
        "label_SS": batch.labels_BSS[i],
        "image_SS3": batch.images_BSS3[i],
    }
