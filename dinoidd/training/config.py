"""The configuration of a training run: validated once, all mistakes told together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dinoidd.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16")
LOSSES = ("set", "pixel")
PARTS = ("classifier", "decoder", "head", "adapter", "last_n_blocks", "all")
ENCODINGS = ("auto", "official", "road255")
SHARDINGS = ("none", "fsdp")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss; weights are those of Mask2Former (arXiv 2112.01527)."""

    kind: str = "set"  # set: Hungarian matching of queries; pixel: per point of the semantic map
    class_weight: float = 2.0
    mask_weight: float = 5.0  # of the binary cross-entropy
    dice_weight: float = 5.0
    no_object_weight: float = 0.1  # of an unmatched query's class, against a matched one's
    class_balance: float = 0.0  # a class weighs its share of the labelled pixels ** -class_balance
    class_weights: tuple[float, ...] | None = None  # one a class; None: as class_balance says
    points: int = 12_544  # sampled of each image: 112 x 112
    oversample: float = 3.0  # candidates for each point of the loss
    uncertain_share: float = 0.75  # of the points, taken where the mask is least certain
    deep_supervision: bool | None = None  # None: of the layers whose inputs are trained


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, with cosine annealing to zero after a linear warm-up."""

    learning_rate: float = 1e-4  # of the head and classifier
    adapter_rate: float = 1.0  # times the learning rate
    backbone_rate: float = 0.1  # times the learning rate, of the last block
    layer_decay: float = 0.9  # of the backbone's rate, for each block towards the input
    weight_decay: float = 0.05  # of matrices; norms, biases and embeddings have none
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    clip_norm: float = 1.0  # of the gradient over everything trained


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What an image goes through; everything off is the image resized to the square."""

    flip: bool = False  # half of the images
    scale: tuple[float, float] = (1.0, 1.0)  # of the square, before a crop or padding with void
    photometric: float = 0.0  # of brightness, contrast, saturation, hue; 1: as strong as in SSD

    @property
    def enabled(self) -> bool:
        return self.flip or self.photometric > 0 or self.scale != (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `dinoidd train` was asked to do."""

    data: str  # root of a data set in a layout that `dinoidd data inspect` knows
    output: str  # folder or bucket prefix
    checkpoint: str | None = None  # the base: exactly one of this
    preset: str | None = None  # and this (random weights)
    classes: str = "idd"  # class table, by name or file
    encoding: str = "auto"  # of IDD's label images; a table of another set has its own
    train_split: str = "train"
    val_split: str = "val"
    max_train_images: int | None = None  # the first of the split; for trying things
    max_val_images: int | None = None
    trained: str = "classifier"  # which part learns; see PARTS
    blocks: int = 4  # of the backbone, where `trained` is last_n_blocks
    cached: bool | None = None  # None: where only the classifier is trained
    cache: str | None = None  # folder or bucket prefix of the cache; None: OUTPUT/cache
    views_per_image: int = 1  # augmented passes that the cache holds of each image
    image_size: int | None = None  # pixels of the square; None: the model's own
    epochs: int = 20
    batch_size: int = 8  # images a step, over all workers
    micro_batch: int | None = None  # images a forward in one worker; None: the worker's whole share
    precision: str = "auto"  # bfloat16 on GPUs, float32 on CPUs
    patience: int | None = 10  # epochs without a better mIoU before it stops; None: never
    seed: int = 0
    workers: int = 1
    use_gpu: bool | None = None  # None: where the cluster has one
    accelerator_type: str | None = None  # of the workers' nodes, like A100
    max_failures: int = 3  # restarts of the workers by Ray before the run fails
    threads: int = 4  # that read images, in one worker
    activation_checkpointing: bool = False
    sharding: str = "none"
    compile: bool = False
    endpoint_url: str | None = None  # of S3-compatible storage
    mlflow: str | None = None  # tracking URI
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError("; ".join(problems))

    @property
    def uses_cache(self) -> bool:
        """Whether the frozen network runs once, and training reads what it found."""
        return self.trained == "classifier" if self.cached is None else self.cached

    @property
    def deep_supervision(self) -> bool:
        """Whether earlier prediction layers have a loss: their inputs are trained, or it was asked."""
        asked = self.loss.deep_supervision
        return self.trained != "classifier" if asked is None else asked

    @property
    def worker_batch(self) -> int:
        """Images a step in one worker."""
        return self.batch_size // self.workers

    @property
    def network_batch(self) -> int:
        """Images a forward through the network in one worker, for a cache too."""
        return self.micro_batch or self.worker_batch

    @property
    def forward_batch(self) -> int:
        """Images a forward and backward in one worker. On a cache it is a step's whole share: the result
        is the same, and several times as fast as one by one."""
        return self.worker_batch if self.uses_cache else self.network_batch

    def _problems(self) -> Iterator[str]:
        if (self.checkpoint is None) == (self.preset is None):
            yield "give either checkpoint=FILE or preset=NAME (random weights) as the base"
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                yield f"{name}={value}: there are {', '.join(allowed)}"
        for name in _COUNTS:
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"{name}={value}: at least 1 is needed"
        for name in ("seed", "max_failures"):
            if (value := getattr(self, name)) < 0:
                yield f"{name}={value}: not below 0"
        if self.image_size is not None and (self.image_size < 32 or self.image_size % 32):
            yield f"image_size={self.image_size}: a positive multiple of 32 is needed"
        yield from self._batch_problems()
        yield from self._cache_problems()
        yield from _loss_problems(self.loss)
        yield from _optimizer_problems(self.optimizer)
        if not 0 <= (strength := self.augmentation.photometric) <= 1:
            yield f"augmentation.photometric={strength}: a strength from 0 to 1 is needed"
        low, high = self.augmentation.scale
        if not 0 < low <= high:
            yield f"augmentation.scale={low},{high}: two positive factors, the smaller one first"

    def _batch_problems(self) -> Iterator[str]:
        if min(self.batch_size, self.workers, self.micro_batch or 1) < 1:
            return  # told already
        if self.batch_size < self.workers:
            yield f"batch_size={self.batch_size}: each of {self.workers} workers needs an image a step"
            return
        if self.batch_size % (self.workers * self.network_batch):
            yield (
                f"batch_size={self.batch_size} is not a multiple of workers={self.workers} x "
                f"micro_batch={self.network_batch}: a step is made of whole forwards"
            )

    def _cache_problems(self) -> Iterator[str]:
        if self.cached and self.trained != "classifier":
            yield f"cached=true goes with trained=classifier: {self.trained} changes what is cached"
        if self.views_per_image > 1 and not (self.uses_cache and self.augmentation.enabled):
            yield (
                f"views_per_image={self.views_per_image} needs a cache and an augmentation: "
                "without one all views are the same"
            )
        if self.sharding != "none" and self.uses_cache:
            yield f"sharding={self.sharding}: a cached classifier is one small matrix; leave it out"


_CHOICES = {
    "precision": PRECISIONS,
    "trained": PARTS,
    "encoding": ENCODINGS,
    "sharding": SHARDINGS,
}
_COUNTS = (
    *("blocks", "views_per_image", "epochs", "batch_size", "micro_batch", "patience", "workers"),
    *("threads", "max_train_images", "max_val_images"),
)


def _loss_problems(loss: LossConfig) -> Iterator[str]:
    if loss.kind not in LOSSES:
        yield f"loss.kind={loss.kind}: there are {', '.join(LOSSES)}"
    for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
        if (value := getattr(loss, name)) < 0:
            yield f"loss.{name}={value}: not below 0"
    if not 0 <= loss.class_balance <= 1:
        yield f"loss.class_balance={loss.class_balance}: an exponent from 0 to 1 is needed"
    if loss.class_weights is not None and min(loss.class_weights, default=0.0) <= 0:
        yield f"loss.class_weights={loss.class_weights}: each has to be more than 0"
    if loss.points < 1:
        yield f"loss.points={loss.points}: at least 1 is needed"
    if loss.oversample < 1:
        yield f"loss.oversample={loss.oversample}: at least 1 is needed"
    if not 0 <= loss.uncertain_share <= 1:
        yield f"loss.uncertain_share={loss.uncertain_share}: a share from 0 to 1 is needed"


def _optimizer_problems(optimizer: OptimizerConfig) -> Iterator[str]:
    for name in ("learning_rate", "clip_norm"):
        if not (value := getattr(optimizer, name)) > 0:
            yield f"optimizer.{name}={value}: more than 0 is needed"
    for name in ("adapter_rate", "backbone_rate", "weight_decay", "warmup_steps"):
        if (value := getattr(optimizer, name)) < 0:
            yield f"optimizer.{name}={value}: not below 0"
    if not 0 < optimizer.layer_decay <= 1:
        yield f"optimizer.layer_decay={optimizer.layer_decay}: from above 0 to 1"
    if not all(0 <= beta < 1 for beta in optimizer.betas):
        yield f"optimizer.betas={optimizer.betas}: from 0 to below 1"
