"""A model's parts through `torch.compile`, for one batch size and image size.

The blocks of the backbone are alike, so they are compiled once and not as one graph of forty: seconds
instead of minutes. What is compiled is kept on disk by torch and found again by the next process of the
same machine (`TORCHINDUCTOR_CACHE_DIR`).
"""

import warnings

import torch

from dinoidd.models import Segmenter


def compile_parts(model: Segmenter, backend: str = "inductor") -> Segmenter:
    """Compile in place; the work is done at the first image of each shape."""
    # Tables kept by an `lru_cache` are traced as what they are computed from, and that is meant.
    warnings.filterwarnings("ignore", message=".*lru_cache.*")
    parts = [*model.backbone.blocks]
    if model.config.head == "mask2former":
        parts += [model.adapter, model.pixel_decoder, model.query_decoder]
    else:
        parts.append(model.linear_head)
    for part in parts:
        part.forward = torch.compile(part.forward, dynamic=False, backend=backend)
    return model
