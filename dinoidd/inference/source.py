"""Where a model comes from: a checkpoint anywhere, or a preset with random weights."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import torch

from dinoidd.checkpoint.load import random_weights
from dinoidd.checkpoint.model import load_model, read_model_info
from dinoidd.classes import ClassTable, load_class_table
from dinoidd.config import Windows
from dinoidd.errors import CheckpointError, ConfigError
from dinoidd.inference.device import pick_device
from dinoidd.inference.dtype import DTYPES, check_dtype, check_gpu, in_dtype, pick_dtype
from dinoidd.inference.predictor import Scorer
from dinoidd.inference.scorer import make_scorer
from dinoidd.models import Segmenter, SegmenterConfig, preset
from dinoidd.models.config import resized
from dinoidd.storage import StorageOptions, shown


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What was asked for. Exactly one of `checkpoint` and `preset` is set."""

    checkpoint: str | None = None  # path or URL of a file that `convert` or `train` wrote
    base: str | None = None  # of a file of `train`: where its base is now; None: where it was
    preset: str | None = None  # a preset's name: random weights
    classes: str = "idd"  # class table of a preset; a checkpoint has its own
    dtype: str = "float32"  # a name of `DTYPES`, or `auto` until it is `settled`
    seed: int = 0  # of a preset's random weights
    weights: str | None = None  # sha256 that the checkpoint has to have; None: any
    storage: StorageOptions = StorageOptions()

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.preset is None):
            raise ConfigError("give either --checkpoint FILE or --preset NAME (random weights)")
        if self.base is not None and self.checkpoint is None:
            raise ConfigError(
                f"--base {self.base} goes with the --checkpoint that was trained on it"
            )
        check_dtype(self.dtype)

    def describe(self) -> "ModelDescription":
        """Check everything that can be checked without loading weights.

        Raises:
            CheckpointError, ConfigError, ClassTableError: one clear sentence.
        """
        if self.checkpoint is not None:
            info = read_model_info(self.checkpoint, self.storage, self.base)
            return ModelDescription(
                config=info.config,
                table=info.table,
                weights=info.weights_sha256,
                dtype=self.dtype,
                trained=info.trained,
            )
        table = load_class_table(self.classes)
        assert self.preset is not None
        config = resized(preset(self.preset), classes=len(table))
        weights = f"random, seed {self.seed}, torch {torch.__version__}"
        return ModelDescription(config=config, table=table, weights=weights, dtype=self.dtype)

    def exactly(self, model: "ModelDescription") -> "ModelSource":
        """The same source in the dtype of the description, and with no other weights than those."""
        weights = None if self.checkpoint is None else model.weights
        return replace(self, dtype=model.dtype, weights=weights)

    def settled(self, device: str) -> "ModelSource":
        """The same source in a dtype that this machine's device computes in (see `pick_dtype`).

        Raises:
            ConfigError: it does not compute in the one that was asked for.
        """
        dtype = pick_dtype(self.dtype, device, self.describe().config)
        check_gpu(dtype, pick_device(device))
        return replace(self, dtype=dtype)

    def scorer(
        self,
        model: Segmenter,
        device: str,
        windows: Windows | None,
        batch_size: int,
        compiled: bool = False,
    ) -> Scorer:
        """What `load` gave, made ready for images; see `make_scorer`."""
        return make_scorer(model, device, windows, batch_size, compiled=compiled)

    def load(self) -> Segmenter:
        """The model on the CPU, in the wanted dtype; a remote file is downloaded once a machine."""
        return in_dtype(self._loaded(DTYPES[self.dtype]), self.dtype)

    def _loaded(self, dtype: torch.dtype) -> Segmenter:
        if self.checkpoint is not None:
            model, info = load_model(
                self.checkpoint, self.storage, dtype, base=self.base, weights=self.weights or ""
            )
            if self.weights not in (None, info.weights_sha256):
                raise CheckpointError(
                    f"{shown(self.checkpoint)} has changed since the run began (weights "
                    f"{info.weights_sha256[:12]}, not {str(self.weights)[:12]}): put the old file back"
                )
            return model
        return random_weights(self.describe().config, dtype, self.seed)


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Everything about a model but its weights."""

    config: SegmenterConfig
    table: ClassTable
    weights: str  # a sha256, or how random ones were drawn
    dtype: str
    trained: bool = False  # False: masks mean nothing yet

    def fingerprint(self, **inference: object) -> str:
        """sha256 over the weights' identity, the class table and the inference settings."""
        config = asdict(self.config)
        if config["head"] == "mask2former":  # of runs that are older than other heads
            del config["head"]
        identity = {
            "weights": self.weights,
            "config": config,
            "classes": self.table.to_dict(),
            "dtype": self.dtype,
            "inference": inference,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
