"""Whether a training fits a device, told before one is rented."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dinoidd.errors import ConfigError
from dinoidd.models import SegmenterConfig, meta_segmenter
from dinoidd.training.config import TrainConfig
from dinoidd.training.parameters import select
from dinoidd.training.planned_step import StepMemory, planned
from dinoidd.training.recompute import layers

_MOMENTS = 2 * 4  # bytes of AdamW's state for each trained number, beside its weight
# CUDA's context, and what cuDNN, cuBLAS and attention take while they run; measured ones are 0.4 to 1 GB.
OVERHEAD = 1_000_000_000
_UNITS = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One kind of step; bytes of one device."""

    name: str
    images: int  # a forward
    weights: dict[str, int]  # by dtype; a worker's shard
    gradients: int
    optimizer: int
    activations: int  # kept for the backward pass
    transient: int  # the most beside these at one moment
    exchange: int  # buckets of DDP, or the layers that FSDP has gathered

    @property
    def held(self) -> int:
        """Of tensors that stay, however few and small the images are."""
        return sum(self.weights.values()) + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """Of tensors."""
        return self.held + self.activations + self.transient + self.exchange


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a training takes of each device."""

    model: SegmenterConfig
    config: TrainConfig
    trained_parameters: int
    phases: list[Phase]

    @property
    def overhead(self) -> int:
        """What CUDA takes beside tensors; nothing in a training on CPUs."""
        return 0 if self.config.use_gpu is False else OVERHEAD

    @property
    def peak(self) -> int:
        """Bytes of the largest phase, with CUDA's own."""
        return max(phase.peak for phase in self.phases) + self.overhead

    @property
    def held(self) -> int:
        """Bytes that no other images lower, with CUDA's own."""
        return max(phase.held for phase in self.phases) + self.overhead

    def advice(self, room: int) -> list[str]:
        """Settings that would bring the peak nearer to `room` bytes, the mildest first."""
        images_matter = self.held <= room
        config, largest = self.config, max(self.phases, key=lambda phase: phase.peak)
        remedies = []
        if config.precision == "float32":
            remedies.append("precision=bfloat16")
        if images_matter and largest.images > 1:
            remedies.append(f"micro_batch={largest.images // 2} (is {largest.images})")
        learns = config.trained != "classifier"
        if images_matter and learns and not config.activation_checkpointing:
            remedies.append("activation_checkpointing=true")
        if learns and config.sharding == "none":
            remedies.append("sharding=fsdp with workers=2 or more")
        elif learns:
            remedies.append(f"workers={2 * config.workers} (is {config.workers})")
        if learns:
            remedies.append(f"training less than trained={config.trained}")
        if images_matter:
            size = config.image_size or self.model.image_size
            remedies.append(f"image_size={max(32, size // 64 * 32)} (is {size})")
        return remedies

    def to_dict(self) -> dict[str, Any]:
        phases = [asdict(phase) | {"peak": phase.peak} for phase in self.phases]
        return {
            "preset": self.model.name,
            "trained": self.config.trained,
            "trained_parameters": self.trained_parameters,
            "phases": phases,
            "overhead": self.overhead,
            "peak": self.peak,
        }


def plan_memory(model: SegmenterConfig, config: TrainConfig) -> MemoryPlan:
    """Plan the memory of a run; nothing of the model is allocated.

    Args:
        config: `precision=auto` is bfloat16, what GPUs run in, unless use_gpu=false.
    """
    if config.precision == "auto":
        precision = "float32" if config.use_gpu is False else "bfloat16"
        config = replace(config, precision=precision)
    network = meta_segmenter(model)
    names = set(select(network, config))
    trained = {n: p for n, p in network.named_parameters() if n in names}
    numbers = sum(p.numel() for p in trained.values())
    if config.uses_cache:
        extraction = planned(model, config, extraction=True)
        phases = [
            _phase("extraction", config.network_batch, extraction, 0),
            _classifier(model, config, numbers),
        ]
    else:
        step = planned(model, config, extraction=False)
        phase = _phase("step", config.forward_batch, step, numbers * _MOMENTS)
        sizes = [_bytes_of(layer) for layer in layers(network)]
        # a layer at work, the next one on its way, a gradient; what is in no layer stays gathered
        gathered = 3 * max(sizes) + 2 * (_bytes_of(network) - sum(sizes))
        phases = [_with_update(_spread(phase, config, gathered))]
    return MemoryPlan(model=model, config=config, trained_parameters=numbers, phases=phases)


def parse_bytes(text: str) -> int:
    """`40GB`, `80 GiB`, `24000MB`; a number alone is in GB. Raises ConfigError."""
    lowered = text.strip().lower().replace(",", "")
    unit = next((u for u in ("gib", "mib", "gb", "mb") if lowered.endswith(u)), "")
    try:
        number = float(lowered.removesuffix(unit)) * _UNITS[unit or "gb"]
    except ValueError:
        number = 0.0
    if not number > 0:
        raise ConfigError(f"--gpu-memory {text!r} is no amount of memory: write 40GB or 40GiB")
    return int(number)


def _phase(name: str, images: int, step: StepMemory, optimizer: int) -> Phase:
    transient = step.peak - step.all_weights - step.gradients - step.saved
    return Phase(
        name=name,
        images=images,
        weights=step.weights,
        gradients=step.gradients,
        optimizer=optimizer,
        activations=step.saved,
        transient=max(transient, 0),
        exchange=0,
    )


def _classifier(model: SegmenterConfig, config: TrainConfig, numbers: int) -> Phase:
    """The step on a cache: queries and logits of each layer, a handful of times over."""
    decoder, outputs = model.decoder, model.classes + 1
    layers_ = decoder.query_layers + 1 if config.deep_supervision else 1
    queries = config.forward_batch * layers_ * decoder.queries
    return Phase(
        name="classifier",
        images=config.forward_batch,
        weights={"float32": 4 * (decoder.width + 1) * outputs},
        gradients=4 * numbers,
        optimizer=numbers * _MOMENTS,
        activations=4 * queries * (decoder.width + 2 * outputs),
        transient=4 * queries * (decoder.width + 2 * outputs) + 4 * numbers,
        exchange=4 * numbers if config.workers > 1 else 0,
    )


def _spread(phase: Phase, config: TrainConfig, gathered: int) -> Phase:
    """The phase in one of several workers."""
    if config.workers == 1:
        return phase
    if config.sharding == "none":
        return replace(phase, exchange=phase.gradients)
    parts = config.workers
    return replace(
        phase,
        weights={name: -(-size // parts) for name, size in phase.weights.items()},
        gradients=-(-phase.gradients // parts),
        optimizer=-(-phase.optimizer // parts),
        exchange=gathered,
    )


def _with_update(phase: Phase) -> Phase:
    """The optimiser's temporary, a copy of every trained number, comes when activations are gone."""
    update = phase.optimizer // 2 - phase.activations
    return replace(phase, transient=max(phase.transient, update))


def _bytes_of(layer: Any) -> int:
    return sum(parameter.nbytes for parameter in layer.parameters())
