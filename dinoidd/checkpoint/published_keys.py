"""Names of the published checkpoints' tensors, turned into this package's and back.

The backbone file and the head file are separate; the head file's classifier holds its classes and,
as the last row, no object, which are two modules here.
"""

import torch
from torch import Tensor

from dinoidd.checkpoint.tensor_file import Tensors

_HEAD_PREFIXES = {
    "adapter.": "segmentation_model.0.",
    "pixel_decoder.": "segmentation_model.1.pixel_decoder.",
    "query_decoder.": "segmentation_model.1.predictor.",
    "linear_head.norm.": "segmentation_model.1.batchnorm_layer.",
    "linear_head.classifier.": "segmentation_model.1.conv.",
}
_CLASSIFIERS = ("query_decoder.classifier.", "linear_head.classifier.")
_CLASS_EMBED = "segmentation_model.1.predictor.class_embed."
_QUERY_CLASSES = ("query_decoder.classifier.", "query_decoder.no_object.")
_BACKBONE = "backbone."


def published_name(name: str) -> str:
    """The published name of one of this package's tensors.

    `query_decoder.classifier.*` and `query_decoder.no_object.*` share `...predictor.class_embed.*`.
    """
    if name.startswith(_BACKBONE):
        return name.removeprefix(_BACKBONE)
    if name.startswith(_QUERY_CLASSES):
        return _CLASS_EMBED + name.rsplit(".", 1)[1]
    for ours, theirs in _HEAD_PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(f"no published name for '{name}'")


def is_classifier(name: str) -> bool:
    """Whether the tensor is of the classifier or of the no-object row."""
    return has_classes(name) or name.startswith(_QUERY_CLASSES)


def has_classes(name: str) -> bool:
    """Whether the tensor has a row a class: a table of other classes needs another one."""
    return name.startswith(_CLASSIFIERS)


class PublishedBackbone:
    """Reads a `*_pretrain_*.pth` file by this package's names."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    @property
    def names(self) -> set[str]:
        return {_BACKBONE + name for name in self._tensors.names}

    def copy(self, name: str, dtype: torch.dtype | None) -> Tensor:
        return self._tensors.copy(published_name(name), dtype)


class PublishedHead:
    """Reads a `*_m2f_head-*.pth` file by this package's names."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    @property
    def names(self) -> set[str]:
        return {ours for name in self._tensors.names for ours in _our_head_names(name)}

    def copy(self, name: str, dtype: torch.dtype | None) -> Tensor:
        tensor = self._tensors.copy(published_name(name), dtype)
        if name.startswith("query_decoder.classifier."):
            return tensor[:-1].clone()
        if name.startswith("query_decoder.no_object."):
            return tensor[-1:].clone()
        return tensor


def _our_head_names(name: str) -> list[str]:
    if name.startswith(_CLASS_EMBED):
        kind = name.removeprefix(_CLASS_EMBED)
        return [f"query_decoder.classifier.{kind}", f"query_decoder.no_object.{kind}"]
    for ours, theirs in _HEAD_PREFIXES.items():
        if name.startswith(theirs):
            return [ours + name.removeprefix(theirs)]
    return [name]  # told as surplus
