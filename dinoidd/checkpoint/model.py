"""A model from whatever holds it: one file, or trained tensors and the base they belong to."""

from pathlib import Path

import torch
from torch import Tensor

from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.cache import local_checkpoint, remote_header
from dinoidd.checkpoint.digest import verify_weights, weights_digest
from dinoidd.checkpoint.file import (
    CheckpointInfo,
    load_checkpoint,
    read_checkpoint_info,
    read_local_header,
)
from dinoidd.checkpoint.load import assign, cast, fill, with_classes
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.checkpoint.trained import TrainedInfo, is_trained, read_trained_info, stored_names
from dinoidd.classes import ClassTable
from dinoidd.errors import CheckpointError
from dinoidd.models import Segmenter, meta_segmenter, preset, random_segmenter
from dinoidd.models.config import resized
from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions, normalise, shown


def read_model_info(
    uri: str, options: StorageOptions = DEFAULT_OPTIONS, base: str | None = None
) -> CheckpointInfo:
    """Check a checkpoint of either kind, and the base of a trained one, by their headers alone.

    Args:
        uri: path or URL of what `dinoidd convert` or `dinoidd train` wrote.
        base: where the base of a trained one is now; None: where it was.

    Raises:
        CheckpointError: a file is missing or broken, or the base has other weights.
    """
    header, label = remote_header(uri, options), shown(uri)
    if not is_trained(header):
        _refuse_base(label, base)
        return read_checkpoint_info(header, label)
    info = read_trained_info(header, label)
    if not info.whole and (place := base or info.base.checkpoint) is not None:
        _check_base(label, info, place, _base_info(label, info, place, options))
    return CheckpointInfo(config=info.config, table=info.table, weights_sha256=info.weights_sha256)


def load_model(
    uri: str,
    options: StorageOptions = DEFAULT_OPTIONS,
    dtype: torch.dtype | None = None,
    *,
    base: str | None = None,
    weights: str = "",
) -> tuple[Segmenter, CheckpointInfo]:
    """The model of a checkpoint of either kind; remote files are downloaded once a machine.

    Args:
        dtype: of the weights; None: as they are stored, trained ones as their base's.
        weights: the digest that the file has to have, where the caller knows it.

    Raises:
        CheckpointError: as `read_model_info`; tensors do not fit, or are not those that the header
            tells of, in the file or in its base (`verify_weights` says what that costs).
    """
    path, label = local_checkpoint(uri, options, weights), shown(uri)
    header = read_local_header(path)
    if not is_trained(header):
        _refuse_base(label, base)
        return load_checkpoint(path, dtype)
    info = read_trained_info(header, label)
    model = _joined(path, label, info, stored_names(header), (options, dtype, base))
    return model, CheckpointInfo(
        config=info.config, table=info.table, weights_sha256=info.weights_sha256
    )


def load_trained(path: Path, base: str | None = None) -> Segmenter:
    """The whole model of a local file of `dinoidd train`, in its base's dtype."""
    return load_model(str(path), base=base)[0]


def load_base(
    *,
    checkpoint: str | None,
    preset_name: str | None,
    table: ClassTable,
    seed: int = 0,
    options: StorageOptions = DEFAULT_OPTIONS,
) -> tuple[Segmenter, Base]:
    """What a training begins with: the model for the classes of `table`, and the base's identity.

    In float32, but for the matrices of the backbone's blocks, nearly all of a large model: those of a
    converted checkpoint stay as they are stored, and with bfloat16 the host holds half as much.

    The classifier is kept where the checkpoint has these classes, and drawn anew from `seed` where it has
    others; the no-object row is always the base's.

    Raises:
        CheckpointError, ConfigError: as `read_model_info`; an unknown preset.
    """
    if checkpoint is not None:
        place = normalise(checkpoint)
        model, info = _load_widened(place, options)
        if info.table.names != table.names:
            model = with_classes(model, len(table), seed)
        return model, Base(weights=info.weights_sha256, checkpoint=shown(place))
    assert preset_name is not None
    model = random_segmenter(resized(preset(preset_name), classes=len(table)), seed)
    base = Base(
        weights=weights_digest(model.state_dict()),
        preset=preset_name,
        seed=seed,
        torch=torch.__version__,
    )
    return model, base


def _load_widened(place: str, options: StorageOptions) -> tuple[Segmenter, CheckpointInfo]:
    if is_trained(remote_header(place, options)):
        # trained matrices are float32, whatever the base is
        return load_model(place, options, torch.float32)
    model, info = load_model(place, options)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        in_block = name.startswith("backbone.blocks.") and tensor.ndim > 1
        if tensor.is_floating_point() and not in_block:
            tensor.data = tensor.data.float()
    return model, info


Where = tuple[StorageOptions, torch.dtype | None, str | None]


def _joined(
    path: Path, label: str, info: TrainedInfo, names: dict[str, str], where: Where
) -> Segmenter:
    """The trained tensors in their base's place."""
    verify_weights(path, names.values(), info.trained_sha256)
    dtype = where[1]
    model = meta_segmenter(info.config)
    kept = {}
    if not info.whole:
        below = _base_model(label, info, where)
        dtype = dtype or next(below.parameters()).dtype
        kept = {n: t for n, t in below.state_dict().items() if n not in names}
    missing = set(model.state_dict()) - set(names) - set(kept)
    wrong = {n for n, t in kept.items() if t.shape != model.state_dict()[n].shape}
    if missing or wrong:  # a classifier that was not trained, and of another number of classes
        raise CheckpointError(f"{label} and its base do not fit: {sorted(missing | wrong)[:5]}")
    source = _Renamed(TensorFile(path), names)
    return assign(model, {**kept, **fill(model, set(names), source, set(names), label, dtype)})


class _Renamed:
    """A file by the model's names."""

    def __init__(self, file: TensorFile, names: dict[str, str]) -> None:
        self._file, self._names = file, names

    def copy(self, name: str, dtype: torch.dtype | None) -> Tensor:
        return self._file.copy(self._names[name], dtype)


def _base_model(label: str, info: TrainedInfo, where: Where) -> Segmenter:
    options, dtype, moved = where
    place = moved or info.base.checkpoint
    if place is not None:
        _check_base(label, info, place, _base_info(label, info, place, options))
        return load_model(place, options, dtype, weights=info.base.weights)[0]
    model = random_segmenter(info.config, info.base.seed)
    digest = weights_digest(model.state_dict())
    if digest != info.base.weights:
        raise CheckpointError(
            f"{label} was trained on {info.base.place}, weights {info.base.weights[:12]}; torch "
            f"{torch.__version__} draws {digest[:12]}: use that torch, or make one file of it there "
            "with 'dinoidd convert'"
        )
    return model if dtype is None else cast(model, dtype)


def _base_info(
    label: str, info: TrainedInfo, place: str, options: StorageOptions
) -> CheckpointInfo:
    try:
        return read_model_info(place, options)
    except CheckpointError as error:
        raise CheckpointError(
            f"{label} was trained on {info.base.place}, and its base cannot be read ({error}): "
            f"{_name_base(label)}"
        ) from error


def _check_base(label: str, info: TrainedInfo, place: str, found: CheckpointInfo) -> None:
    if found.weights_sha256 != info.base.weights:
        raise CheckpointError(
            f"{label} was trained on {info.base.place}, weights {info.base.weights[:12]}; "
            f"{shown(place)} has the weights {found.weights_sha256[:12]}: {_name_base(label)}"
        )


def _name_base(label: str) -> str:
    """What to do, also for who has a command that takes no --base."""
    return (
        "put that base there or name it with --base FILE; where a command has no --base, make one file "
        f"of both with 'dinoidd convert {label} --base FILE --output whole.safetensors'"
    )


def _refuse_base(label: str, base: str | None) -> None:
    if base is not None:
        raise CheckpointError(f"{label} holds a whole network: leave --base {shown(base)} out")
