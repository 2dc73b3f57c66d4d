"""A model with drawn weights, made where it is measured: 7B parameters take a GPU a second."""

from typing import Any

import torch
from torch import Tensor, nn

from dinoidd.models import Segmenter, SegmenterConfig, meta_segmenter
from dinoidd.models.deformable import DeformableAttention
from dinoidd.models.rope import RotaryEmbedding

_TOKEN_STD = 0.02  # of the backbone's own tokens; queries and level tables have 1
_LOGIT_STD = 4.0  # of classes and masks, once they are spread


@torch.no_grad()
def drawn_segmenter(
    config: SegmenterConfig, dtype: torch.dtype, device: torch.device, seed: int
) -> Segmenter:
    """Weights that keep activations at a sane size: matrices drawn for their inputs' number, norms that
    change nothing. The same seed gives the same weights on the same kind of device."""
    model = meta_segmenter(config).to(dtype).to_empty(device=device).requires_grad_(False)
    draw = torch.Generator(device).manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(std=_std(name, tensor), generator=draw)
        elif tensor.is_floating_point():
            tensor.fill_(float(name.endswith(("gamma", "weight", "running_var", "bias_mask"))))
    for module in model.modules():
        _computed(module, device)
    return model.eval()


def _std(name: str, tensor: Tensor) -> float:
    if name.endswith(("_token", "_tokens")):
        return _TOKEN_STD
    is_table = name.endswith(("query_feat.weight", "query_embed.weight", "level_embed.weight"))
    return 1.0 if is_table else tensor[0].numel() ** -0.5


@torch.no_grad()
def spread_classes(model: Segmenter, image_13HW: Tensor) -> None:
    """Make the model see several classes in such an image: drawn weights alone give all its pixels to
    one, and what depends on borders between classes would have nothing to do."""
    if model.config.head == "linear":
        head: Any = model.linear_head.classifier
        (output,) = model(image_13HW)
        logits_K = output.class_logits[0].float().flatten(1)
        _spread(head, logits_K.T)
        return
    decoder: Any = model.query_decoder
    (output,) = model(image_13HW)
    _spread(decoder.classifier, output.class_logits[0, :, :-1].float())
    last = decoder.mask_embed.layers[2]
    scale = _LOGIT_STD / output.mask_logits.float().std()
    last.weight.mul_(scale.to(last.weight.dtype))
    last.bias.mul_(scale.to(last.bias.dtype))


def _spread(classifier: Any, logits_NK: Tensor) -> None:
    """No class is every query's: each one's logits get mean 0 and the same deviation."""
    scale_K = _LOGIT_STD / logits_NK.std(0).clamp(min=1e-6)
    shape = (-1, *[1] * (classifier.weight.ndim - 1))
    mean_K = logits_NK.mean(0) - classifier.bias.float()
    classifier.weight.mul_(scale_K.view(shape).to(classifier.weight.dtype))
    classifier.bias.copy_(-mean_K * scale_K)


def _computed(module: Any, device: torch.device) -> None:
    """What is not drawn: places to look at first, and angles."""
    if isinstance(module, DeformableAttention):
        module.look_around()
    elif isinstance(module, RotaryEmbedding):
        head_dim = 4 * len(module.get_buffer("periods"))
        module.periods = RotaryEmbedding(head_dim, module.base).get_buffer("periods").to(device)
    elif isinstance(module, nn.BatchNorm2d):
        module.get_buffer("num_batches_tracked").zero_()
