"""Weights into a segmenter: each tensor exists once, in the wanted dtype."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dinoidd.checkpoint.hugging_face_keys import (
    HuggingFaceBackbone,
    check_config,
    computed_in_model,
)
from dinoidd.checkpoint.published_keys import (
    PublishedBackbone,
    PublishedHead,
    has_classes,
    is_classifier,
)
from dinoidd.checkpoint.tensor_file import TensorFile, open_hugging_face
from dinoidd.errors import CheckpointError
from dinoidd.models import Segmenter, SegmenterConfig, meta_segmenter, random_segmenter
from dinoidd.models.linear import LinearHead

_SHOWN = 5


class Source(Protocol):
    def copy(self, name: str, dtype: torch.dtype | None) -> Tensor: ...


def load_published(
    config: SegmenterConfig,
    backbone: Path,
    head: Path | None,
    *,
    dtype: torch.dtype = torch.float32,
    new_classifier: bool = True,
    seed: int = 0,
) -> Segmenter:
    """A segmenter from the published backbone (a file or a Hugging Face directory) and head.

    Args:
        head: None: a linear head, drawn from `seed`.
        new_classifier: draw `config.classes` fresh rows from `seed` (the head's no-object row is
            kept); otherwise the head's classifier must have exactly that many.

    Raises:
        CheckpointError: a file is broken, or its tensors do not fit; they are named.
    """
    model = meta_segmenter(config)
    wanted = set(model.state_dict())
    backbone_names = {n for n in wanted if n.startswith("backbone.")}
    body = fill(model, backbone_names, *_open_backbone(config, backbone, backbone_names), dtype)
    if head is None:
        return assign(model, {**body, **_fresh_head(config, dtype, seed)})
    head_source = PublishedHead(TensorFile(head))
    fresh = {n for n in wanted if has_classes(n) and new_classifier}
    names = head_source.names - fresh
    rest = fill(model, wanted - backbone_names - fresh, head_source, names, str(head), dtype)
    state = {**body, **rest, **_fresh_classifier(config, fresh, dtype, seed)}
    return assign(model, state)


def _open_backbone(
    config: SegmenterConfig, path: Path, wanted: set[str]
) -> tuple[Source, set[str], str]:
    """The source, the names it has, and what to call it in messages."""
    if path.is_dir():
        check_config(path, config.backbone)
        directory = HuggingFaceBackbone(open_hugging_face(path), config.backbone)
        stored = {n for n in wanted if not computed_in_model(n)}
        computed = _Computed(config, directory)
        return computed, directory.names(stored) | (wanted - stored), str(path)
    file = PublishedBackbone(TensorFile(path))
    return file, file.names, str(path)


class _Computed:
    """A Hugging Face directory, with the constants that it leaves to the model."""

    def __init__(self, config: SegmenterConfig, directory: HuggingFaceBackbone) -> None:
        self._directory = directory
        self._config = config.backbone

    def copy(self, name: str, dtype: torch.dtype | None) -> Tensor:
        dim = self._config.embed_dim
        if name.endswith("rope_embed.periods"):
            steps = torch.arange(self._config.head_dim // 4) / (self._config.head_dim // 4)
            return self._config.rope_base**steps
        if name.endswith("bias_mask"):
            return torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(dim).to(dtype)
        if ".local_cls_norm." in name:
            return torch.full((dim,), float(name.endswith("weight")), dtype=dtype)
        return self._directory.copy(name, dtype)


def fill(
    model: Segmenter,
    wanted: set[str],
    source: Source,
    names: set[str],
    label: str,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Copy the wanted tensors out of a source, refusing what is missing, surplus or misshapen."""
    expected = {n: t.shape for n, t in model.state_dict().items()}
    refuse(label, missing=wanted - names, surplus=names - wanted)
    state: dict[str, Tensor] = {}
    misshapen = []
    for name in sorted(wanted):
        tensor = source.copy(name, kept_dtype(name, dtype))
        if tensor.shape != expected[name]:
            found, want = list(tensor.shape), list(expected[name])
            misshapen.append(f"{name} is {found}, the model needs {want}")
        else:
            state[name] = tensor
        if len(misshapen) > _SHOWN:
            break
    if misshapen:
        hint = "wrong --preset or decoder size"
        if any(is_classifier(m) for m in misshapen):
            hint += ", or the class table does not have the checkpoint's number of classes"
        raise CheckpointError(f"{label} does not fit ({hint}): {_some(misshapen)}")
    return state


def kept_dtype(name: str, dtype: torch.dtype | None) -> torch.dtype | None:
    """RoPE periods stay in float32 whatever the model runs in."""
    return torch.float32 if name.endswith("rope_embed.periods") else dtype


def refuse(label: str, *, missing: set[str], surplus: set[str]) -> None:
    """Raise a CheckpointError that names the keys, if there are any."""
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors are missing: {_some(sorted(missing))}")
    if surplus:
        problems.append(f"{len(surplus)} tensors are unknown: {_some(sorted(surplus))}")
    if problems:
        raise CheckpointError(
            f"{label} is not a checkpoint of this model ({'; '.join(problems)}). "
            "Choose the --preset that the file was made for, and pass the backbone and the head "
            "to their own options."
        )


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _fresh_classifier(
    config: SegmenterConfig, names: set[str], dtype: torch.dtype, seed: int
) -> dict[str, Tensor]:
    if not names:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = _drawn_classifier(config)
    return {n: getattr(layer, n.rsplit(".", 1)[1]).detach().to(dtype) for n in names}


def _fresh_head(config: SegmenterConfig, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    assert config.head == "linear", "a Mask2Former head is never drawn beside a read backbone"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = LinearHead(config.backbone.embed_dim, config.classes).state_dict()
    return {
        f"linear_head.{n}": t.to(dtype) if t.is_floating_point() else t for n, t in state.items()
    }


def _drawn_classifier(config: SegmenterConfig) -> torch.nn.Module:
    if config.head == "linear":
        return LinearHead(config.backbone.embed_dim, config.classes).classifier
    return torch.nn.Linear(config.decoder.width, config.classes)


def with_classes(model: Segmenter, classes: int, seed: int) -> Segmenter:
    """The same network with a new, untrained classifier; a no-object row is kept."""
    config = replace(model.config, classes=classes)
    state = model.state_dict()
    names = {n for n in state if has_classes(n)}
    dtype = state[min(names)].dtype
    fresh = _fresh_classifier(config, names, dtype, seed)
    return assign(meta_segmenter(config), {**state, **fresh})


def assign(model: Segmenter, state: dict[str, Tensor]) -> Segmenter:
    """Put the tensors in the place of the meta ones; nothing is copied."""
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def cast(model: Segmenter, dtype: torch.dtype) -> Segmenter:
    """The model in another dtype, except for what stays in float32."""
    state = {
        n: t.to(kept_dtype(n, dtype)) if t.is_floating_point() else t
        for n, t in model.state_dict().items()
    }
    return assign(model, state)


def random_weights(config: SegmenterConfig, dtype: torch.dtype, seed: int) -> Segmenter:
    """Random weights, for trying the pipeline and for measuring speed."""
    return cast(random_segmenter(config, seed), dtype)
