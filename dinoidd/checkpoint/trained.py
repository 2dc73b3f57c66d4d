"""What training leaves behind: a small safetensors file of the trained tensors alone.

They stand under the model's own names, the optimiser's as `optimizer.<parameter>.<key>`. The rest of the
network is the base's, which the file names and identifies; `dinoidd.checkpoint.model` joins the two.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.digest import damaged, weights_digest
from dinoidd.checkpoint.file import check_classes, config_from_dict, write_tensors
from dinoidd.checkpoint.header import Header
from dinoidd.checkpoint.load import refuse
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.classes import ClassTable
from dinoidd.errors import CheckpointError, DinoiddError
from dinoidd.models import SegmenterConfig, meta_segmenter

FORMAT = "dinoidd-trained-1"
_OPTIMIZER, _CONSTANT = "optimizer.", "constant."


@dataclass(frozen=True, kw_only=True)
class TrainedInfo:
    """What such a file says of itself, read without its tensors."""

    config: SegmenterConfig  # of the whole network, with the classes that were trained
    table: ClassTable
    base: Base
    whole: bool = False  # everything was trained: the base is not needed
    training: dict[str, Any] = field(default_factory=dict)  # the run's configuration
    epoch: int = 0  # that were finished
    step: int = 0  # optimiser steps so far
    metrics: dict[str, Any] = field(default_factory=dict)  # of that epoch: miou, val_loss, ...
    state: dict[str, Any] = field(default_factory=dict)  # what else a resumed run has to know
    trained_sha256: str = ""  # over the trained tensors

    @property
    def weights_sha256(self) -> str:
        """Identity of the whole network: another base or other trained weights give another one."""
        if self.whole:
            return self.trained_sha256
        return hashlib.sha256(f"{self.base.weights} {self.trained_sha256}".encode()).hexdigest()


_OBJECTS = ("config", "table", "base")  # the other fields are JSON as they are
_JSON = tuple(f.name for f in fields(TrainedInfo) if f.name not in _OBJECTS)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A file's content. Optimiser tensors have the names that training gives them.

    `constants`, by the model's names, are what training left alone; with all of it no base is needed.
    """

    info: TrainedInfo
    tensors: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)


def save_trained(trained: Trained, path: Path) -> TrainedInfo:
    """Write the file, completed under a temporary name first; `whole` and the digest are filled in.

    Raises:
        CheckpointError: the tensors are not the model's, the class table has another number of classes,
            or the file cannot be written.
    """
    check_classes(str(path), trained.info.config, trained.info.table)
    tensors = _plain(trained.tensors)
    constants = _plain(trained.constants, _CONSTANT)
    stored = {n.removeprefix(_CONSTANT): tuple(t.shape) for n, t in (constants | tensors).items()}
    expected = _shapes(trained.info.config)
    _check_tensors(str(path), stored, expected)
    info = replace(
        trained.info,
        whole=set(stored) == set(expected),
        trained_sha256=weights_digest(constants | tensors),
    )
    metadata = {name: json.dumps(getattr(info, name)) for name in _JSON}
    metadata |= {
        "format": FORMAT,
        "config": json.dumps(asdict(info.config)),
        "classes": json.dumps(info.table.stored()),
        "base": json.dumps(asdict(info.base)),
        "weights_sha256": info.weights_sha256,
    }
    optimizer = _plain(trained.optimizer, _OPTIMIZER)
    write_tensors({**tensors, **constants, **optimizer}, metadata, path)
    return info


def is_trained(header: Header) -> bool:
    """Whether the file is one of trained tensors alone."""
    return header.metadata.get("format") == FORMAT


def stored_names(header: Header) -> dict[str, str]:
    """The model's tensors in the file: their names there, by the model's."""
    names = (name for name in header.shapes if not name.startswith(_OPTIMIZER))
    return {name.removeprefix(_CONSTANT): name for name in names}


def read_trained_info(header: Header, label: str) -> TrainedInfo:
    """Check a file by its header alone.

    Raises:
        CheckpointError: not a file of `dinoidd train`, or one that contradicts itself.
    """
    metadata = header.metadata
    if not is_trained(header):
        raise CheckpointError(
            f"{label} is not a checkpoint of training (format {metadata.get('format')!r}, expected "
            f"'{FORMAT}'): best.safetensors and last.safetensors of `dinoidd train` are"
        )
    try:
        plain = {n: json.loads(metadata[n]) for n in _JSON}
        info = TrainedInfo(
            config=config_from_dict(json.loads(metadata["config"])),
            table=ClassTable.from_dict(json.loads(metadata["classes"])),
            base=Base(**json.loads(metadata["base"])),
            **plain,
        )
    except (KeyError, TypeError, ValueError, DinoiddError) as error:
        raise CheckpointError(f"{label} has a broken header: {error}") from error
    check_classes(label, info.config, info.table)
    shapes = {name: header.shapes[stored] for name, stored in stored_names(header).items()}
    _check_tensors(label, shapes, _shapes(info.config))
    if info.whole and (missing := set(_shapes(info.config)) - set(shapes)):
        refuse(label, missing=missing, surplus=set())
    return info


def load_trained_state(path: Path, info: TrainedInfo) -> Trained:
    """All of a local file, to go on with the training: tensors as they are stored.

    Raises:
        CheckpointError: the file is broken, or its tensors are not those that its header tells of.
    """
    file = TensorFile(path)
    parts: dict[str, dict[str, Tensor]] = {_OPTIMIZER: {}, _CONSTANT: {}, "": {}}
    for name in sorted(file.names):
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = file.copy(name)
    tensors, constants = parts[""], parts[_CONSTANT]
    found = weights_digest(_plain(constants, _CONSTANT) | tensors)
    if found != info.trained_sha256:
        raise damaged(path, found, info.trained_sha256)
    optimizer = parts[_OPTIMIZER]
    return Trained(info=info, tensors=tensors, optimizer=optimizer, constants=constants)


def _plain(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{n}": t.detach().cpu().contiguous() for n, t in tensors.items()}


def _shapes(config: SegmenterConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in meta_segmenter(config).state_dict().items()}


def _check_tensors(
    label: str, shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> None:
    if not shapes:
        raise CheckpointError(f"{label} holds no trained tensor")
    wrong = {name for name, shape in shapes.items() if expected.get(name) != shape}
    refuse(label, missing=set(), surplus=wrong)
