"""dinoidd's own checkpoint: one safetensors file that holds weights, sizes and class table."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dinoidd.checkpoint.load import assign, fill
from dinoidd.checkpoint.tensor_file import TensorFile, safetensors_metadata
from dinoidd.classes import ClassTable
from dinoidd.errors import CheckpointError, DinoiddError
from dinoidd.models import (
    AdapterConfig,
    BackboneConfig,
    DecoderConfig,
    Segmenter,
    SegmenterConfig,
    meta_segmenter,
)

FORMAT = "dinoidd-segmenter-1"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint says of itself, read without its weights."""

    config: SegmenterConfig
    table: ClassTable
    weights_sha256: str  # over names, dtypes, shapes and values


def save_checkpoint(model: Segmenter, table: ClassTable, path: Path) -> CheckpointInfo:
    """Write the model as one file, completed under a temporary name first.

    Raises:
        CheckpointError: the class table has another number of classes than the model.
    """
    if len(table) != model.config.classes:
        raise CheckpointError(
            f"the model has {model.config.classes} classes, the class table '{table.name}' {len(table)}"
        )
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    info = CheckpointInfo(config=model.config, table=table, weights_sha256=weights_digest(state))
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(info.config)),
        "classes": json.dumps(table.to_dict()),
        "weights_sha256": info.weights_sha256,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file(state, partial, metadata=metadata)
    partial.replace(path)
    return info


def read_checkpoint_info(path: Path) -> CheckpointInfo:
    """Read and check the header.

    Raises:
        CheckpointError: not a file of `dinoidd convert`, or of a version this one cannot read.
    """
    metadata = safetensors_metadata(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a dinoidd checkpoint (format {metadata.get('format')!r}, expected "
            f"'{FORMAT}'): make one from published files with 'dinoidd convert'"
        )
    try:
        return CheckpointInfo(
            config=config_from_dict(json.loads(metadata["config"])),
            table=ClassTable.from_dict(json.loads(metadata["classes"])),
            weights_sha256=metadata["weights_sha256"],
        )
    except (KeyError, TypeError, ValueError, DinoiddError) as error:
        raise CheckpointError(f"{path} has a broken header: {error}") from error


def load_checkpoint(path: Path, dtype: torch.dtype | None = None) -> tuple[Segmenter, CheckpointInfo]:
    """The model of a file, in its stored dtype or another.

    Raises:
        CheckpointError: the file is broken or its tensors do not fit its own header.
    """
    info = read_checkpoint_info(path)
    model = meta_segmenter(info.config)
    file = TensorFile(path)
    state = fill(model, set(model.state_dict()), file, set(file.names), str(path), dtype)
    return assign(model, state), info


def config_from_dict(values: dict[str, Any]) -> SegmenterConfig:
    """The inverse of `dataclasses.asdict` for a SegmenterConfig."""
    parts = {
        "backbone": BackboneConfig(**values["backbone"]),
        "adapter": AdapterConfig(**values["adapter"]),
        "decoder": DecoderConfig(**values["decoder"]),
        "mean": tuple(values["mean"]),
        "std": tuple(values["std"]),
    }
    return SegmenterConfig(**{**values, **parts})


def weights_digest(state: dict[str, Tensor]) -> str:
    """A sha256 over every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
