"""A step as training makes it, on tensors that need no memory, or on real ones for comparison.

Every image is taken to show every class, which is the most that a loss can need.
Shapes: B images, L prediction layers, Q queries, K classes, S the side of the square.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from dinoidd.models import Segmenter, SegmenterConfig, meta_segmenter
from dinoidd.models.positions import sine_positions
from dinoidd.models.query_decoder import QueryOutput
from dinoidd.training.config import TrainConfig
from dinoidd.training.linear import map_loss
from dinoidd.training.live_memory import LiveMemory, SavedTensors
from dinoidd.training.mask_costs import (
    loss_costs,
    loss_points,
    mask_costs,
    matching_costs,
    sample,
)
from dinoidd.training.pixel_loss import PixelCriterion, PointValues
from dinoidd.training.points import Points, point_counts, uncertain_points
from dinoidd.training.precision import autocast, network_dtype
from dinoidd.training.prepare import prepare
from dinoidd.training.targets import Targets

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes of one device."""

    weights: dict[str, int]  # by dtype; buffers are among them
    gradients: int
    saved: int  # by autograd, for the backward pass
    peak: int  # of weights, gradients and everything that lives on the way

    @property
    def all_weights(self) -> int:
        return sum(self.weights.values())


def planned(model: SegmenterConfig, config: TrainConfig, *, extraction: bool) -> StepMemory:
    """What a step takes, or a forward of the extraction, without allocating anything.

    Args:
        config: `precision` is not `auto`.
    """
    config = replace(config, compile=False, sharding="none")  # sharding is arithmetic
    network = prepare(meta_segmenter(model), config, torch.device("meta"))
    shapes = {n: (t.shape, t.dtype) for n, t in network.state_dict().items()}
    # CPU tensors without memory: unlike meta ones they know autocast. They must not stay in a cache.
    with FakeTensorMode(), _positions_forgotten(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer")
        state = {n: torch.empty(shape, dtype=dtype) for n, (shape, dtype) in shapes.items()}
        network.load_state_dict(state, assign=True)
        return measured(network, config, extraction=extraction)


def measured(model: Segmenter, config: TrainConfig, *, extraction: bool = False) -> StepMemory:
    """The same of a prepared model's tensors, whatever they are."""
    sine_positions.cache_clear()  # counted where they are made
    live, saved = LiveMemory(), SavedTensors(model)
    tensors = list(model.state_dict().values())
    live.add(*tensors)
    weights: dict[str, int] = {}
    for tensor in tensors:
        name = str(tensor.dtype).removeprefix("torch.")
        weights[name] = weights.get(name, 0) + tensor.nbytes
    kept = 0
    with ExitStack() as stack:
        if network_dtype(config, CPU) == torch.bfloat16:
            stack.enter_context(_CudaPrecision())
        stack.enter_context(live)
        if extraction:
            with torch.no_grad():
                _observe(model, config)
        else:
            for _ in range(min(2, config.worker_batch // config.forward_batch)):
                with saved.hooks():
                    loss = _loss(model, config)
                kept = saved.bytes
                saved.forget()
                loss.backward()
                del loss
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return StepMemory(weights=weights, gradients=gradients, saved=kept, peak=live.peak)


@contextmanager
def _positions_forgotten() -> Iterator[None]:
    try:
        yield
    finally:
        sine_positions.cache_clear()


def _outputs(model: Segmenter, config: TrainConfig) -> tuple[list[QueryOutput], Tensor]:
    """The network's answers, and label maps [B, S, S]."""
    size, count = config.image_size or model.config.image_size, config.network_batch
    images = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    labels = torch.zeros(count, size, size, dtype=torch.uint8)
    pixels = images.permute(0, 3, 1, 2).float() - 127.0
    with autocast(network_dtype(config, CPU), CPU):
        return model(pixels / 64.0, config.deep_supervision), labels


def _loss(model: Segmenter, config: TrainConfig) -> Tensor:
    linear = model.config.head == "linear"
    points_B = [] if linear else _points(config)
    outputs, labels_BSS = _outputs(model, config)
    if linear:
        weights_K = torch.ones(model.config.classes)
        pairs = zip(outputs[0].class_logits, labels_BSS, strict=True)
        return torch.stack([map_loss(m, labels, weights_K) for m, labels in pairs]).sum()
    logits = torch.stack([o.class_logits for o in outputs], dim=1).float()
    images = [[o.mask_logits[i] for o in outputs] for i in range(len(labels_BSS))]
    if config.loss.kind == "pixel":
        values = [
            PointValues(
                torch.stack([sample(m, points.matching_P2).sigmoid() for m in masks]),
                _EveryClass(labels_SS, model.config.classes).at(points.matching_P2),
            )
            for masks, labels_SS, points in zip(images, labels_BSS, points_B, strict=True)
        ]
        return PixelCriterion(config.loss, model.config.classes).losses(logits, values)[0].sum()
    losses = [
        _mask_loss(masks, _EveryClass(labels_SS, model.config.classes), points, config)
        for masks, labels_SS, points in zip(images, labels_BSS, points_B, strict=True)
    ]
    wanted = torch.zeros(logits.shape[:3], dtype=torch.int64)
    classified = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none")
    return torch.stack(losses).sum() + classified.sum()


def _mask_loss(
    masks: list[Tensor], targets: Targets, points: Points, config: TrainConfig
) -> Tensor:
    """As SetCriterion has it, with the first queries for those that are matched."""
    for mask in masks:
        matching_costs(mask, targets, points)
    pairs = min(len(targets.classes_G), len(masks[0]))
    matched = torch.cat([mask[torch.arange(pairs)] for mask in masks])
    values, labels = loss_points(matched, targets, points, uncertain_points(config.loss))
    wanted = targets.classes_G[:pairs].repeat(len(masks))
    bce, dice = mask_costs(values, (labels == wanted[:, None]).float())
    return bce.sum() + dice.sum()


def _observe(model: Segmenter, config: TrainConfig) -> None:
    points_B = _points(config)
    outputs, labels_BSS = _outputs(model, config)
    for i, (labels_SS, points) in enumerate(zip(labels_BSS, points_B, strict=True)):
        targets = _EveryClass(labels_SS, model.config.classes)
        for output in outputs:
            if config.loss.kind == "pixel":
                sample(output.mask_logits[i], points.matching_P2).sigmoid()
            else:
                matching_costs(output.mask_logits[i], targets, points)
                loss_costs(output.mask_logits[i], targets, points, uncertain_points(config.loss))


def _points(config: TrainConfig) -> list[Points]:
    """Those of every image, which are there before the network runs."""
    counts = point_counts(config.loss)
    return [
        Points(*(torch.rand(count, 2) for count in counts)) for _ in range(config.network_batch)
    ]


class _EveryClass(Targets):
    """Labels of an image that shows all classes; which they are is not looked at."""

    def __init__(self, labels_SS: Tensor, classes: int) -> None:
        self._labels_SS = labels_SS
        self.classes_G = torch.arange(classes)


class _CudaPrecision(TorchFunctionMode):
    """Norms and softmax in float32, as autocast has them on GPUs; on CPUs it leaves them be."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tuple(a.float() if _is_half(a) else a for a in args)
        return func(*args, **(kwargs or {}))


_FLOAT32 = (torch.layer_norm, torch.group_norm, torch.softmax, Tensor.softmax, F.softmax)


def _is_half(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16
