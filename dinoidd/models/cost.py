"""What a model costs: parameters and floating-point operations, counted on the meta device."""

from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dinoidd.models.config import SegmenterConfig
from dinoidd.models.segmenter import Segmenter, meta_segmenter


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Numbers of one configuration at one image size. A multiply-add counts as 2 FLOP."""

    preset: str
    classes: int
    image_size: int
    frozen_parameters: int  # all but classifier and no-object row
    trainable_parameters: int  # the classifier; of a linear head all of it
    no_object_parameters: int  # kept from pretraining, frozen; a linear head has none
    parameters_by_part: dict[str, int]
    flops_per_image: int
    flops_by_part: dict[str, int]
    bf16_bytes: int  # of all weights

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure_cost(config: SegmenterConfig, image_size: int | None = None) -> Cost:
    """Count parameters and FLOP of one square image, without allocating any weight.

    Raises:
        ConfigError: `image_size` is not a positive multiple of 32.
    """
    if image_size is not None:
        config = replace(config, image_size=image_size)
    size = config.image_size
    model = meta_segmenter(config).requires_grad_(False)
    parts = {name: _parameters(part) for name, part in model.named_children()}
    trainable, no_object = _classifier_parameters(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    by_module = counter.get_flop_counts()
    flops = {name: sum(by_module.get(f"Segmenter.{name}", {}).values()) for name in parts}
    return Cost(
        preset=config.name,
        classes=config.classes,
        image_size=size,
        frozen_parameters=sum(parts.values()) - trainable - no_object,
        trainable_parameters=trainable,
        no_object_parameters=no_object,
        parameters_by_part=parts,
        flops_per_image=counter.get_total_flops(),
        flops_by_part=flops,
        bf16_bytes=2 * sum(parts.values()),
    )


def _classifier_parameters(model: Segmenter) -> tuple[int, int]:
    """Of the classifier, and of the no-object row."""
    if model.config.head == "linear":
        return _parameters(model.linear_head), 0
    decoder = model.query_decoder
    return _parameters(decoder.classifier), _parameters(decoder.no_object)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
