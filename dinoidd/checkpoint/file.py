"""dinoidd's own checkpoint: one safetensors file that holds weights, sizes and class table."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dinoidd.checkpoint.digest import verify_weights, weights_digest
from dinoidd.checkpoint.header import Header, read_header
from dinoidd.checkpoint.load import assign, fill, refuse
from dinoidd.checkpoint.tensor_file import TensorFile
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
    trained: bool = True  # False: the classifier is as it was drawn


def save_checkpoint(
    model: Segmenter, table: ClassTable, path: Path, *, trained: bool = True
) -> CheckpointInfo:
    """Write the model as one file, completed under a temporary name first.

    Raises:
        CheckpointError: the class table has another number of classes than the model, or the file
            cannot be written.
    """
    check_classes(str(path), model.config, table)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    info = CheckpointInfo(
        config=model.config, table=table, weights_sha256=weights_digest(state), trained=trained
    )
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(info.config)),
        "classes": json.dumps(table.stored()),
        "weights_sha256": info.weights_sha256,
        "trained": json.dumps(trained),
    }
    write_tensors(state, metadata, path)
    return info


def check_classes(label: str, config: SegmenterConfig, table: ClassTable) -> None:
    """Raise a CheckpointError where the class table has another number of classes than the model."""
    if len(table) != config.classes:
        raise CheckpointError(
            f"{label}: the model has {config.classes} classes, the class table '{table.name}' "
            f"{len(table)}"
        )


def write_tensors(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Write a safetensors file, completed under a temporary name first.

    Raises:
        CheckpointError: it cannot be written.
    """
    make_folder_of(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(state, partial, metadata=metadata)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def make_folder_of(path: Path) -> None:
    """Make the folder that a checkpoint is to be written to.

    Raises:
        CheckpointError: it cannot be made, or the path itself is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error
    if path.is_dir():
        raise CheckpointError(f"{path} cannot be written: there is a folder of that name")


def read_checkpoint_info(header: Header, label: str) -> CheckpointInfo:
    """Check a checkpoint by its header alone: version, sizes, every tensor's name and shape.

    Raises:
        CheckpointError: not a file of `dinoidd convert`, or one that contradicts itself.
    """
    metadata = header.metadata
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{label} is not a dinoidd checkpoint (format {metadata.get('format')!r}, expected "
            f"'{FORMAT}'): make one from published files with 'dinoidd convert'"
        )
    try:
        info = CheckpointInfo(
            config=config_from_dict(json.loads(metadata["config"])),
            table=ClassTable.from_dict(json.loads(metadata["classes"])),
            weights_sha256=metadata["weights_sha256"],
            trained=json.loads(metadata.get("trained", "true")),
        )
    except (KeyError, TypeError, ValueError, DinoiddError) as error:
        raise CheckpointError(f"{label} has a broken header: {error}") from error
    check_classes(label, info.config, info.table)
    expected = {n: tuple(t.shape) for n, t in meta_segmenter(info.config).state_dict().items()}
    wrong = sorted(n for n, shape in header.shapes.items() if expected.get(n, shape) != shape)
    refuse(
        label,
        missing=set(expected) - set(header.shapes),
        surplus=set(header.shapes) - set(expected) | set(wrong),
    )
    return info


def read_local_header(path: Path) -> Header:
    """The header of a local file.

    Raises:
        CheckpointError: no such file, or not a safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint file: {path}")
    with path.open("rb") as file:

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        return read_header(read, path.stat().st_size, str(path))


def load_checkpoint(
    path: Path, dtype: torch.dtype | None = None
) -> tuple[Segmenter, CheckpointInfo]:
    """The model of a file, in its stored dtype or another.

    Raises:
        CheckpointError: the file is broken or its tensors are not those that its header tells of.
    """
    info = read_checkpoint_info(read_local_header(path), str(path))
    model = meta_segmenter(info.config)
    verify_weights(path, model.state_dict(), info.weights_sha256)
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
