"""A folder of reference outputs, compared with this model stage by stage.

The folder holds `config.json` (sizes), `backbone.pth` and `m2f_head.pth` (weights in the published
format) and `expected.safetensors` (inputs and outputs, float32).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinoidd.checkpoint.load import load_published
from dinoidd.checkpoint.tensor_file import TensorFile
from dinoidd.errors import CheckpointError
from dinoidd.models import AdapterConfig, BackboneConfig, DecoderConfig, Segmenter, SegmenterConfig
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.query_decoder import QueryOutput
from dinoidd.models.semantic import class_scores

# Rounding may flip the class of a pixel where two classes tie.
_EQUAL_PIXELS = 0.999
_SWIGLU_MULTIPLE = {"swiglu": 8, "swiglu32": 32, "swiglu64": 64, "swiglu128": 128}


@dataclass(frozen=True, kw_only=True)
class StageDifference:
    """The largest absolute difference at a stage, over the reference's standard deviation."""

    stage: str
    difference: float

    def within(self, tolerance: float) -> bool:
        return self.difference <= tolerance  # False for NaN


@dataclass(frozen=True, kw_only=True)
class Parity:
    """All stages of one folder, in the network's order, and the share of pixels of the same class."""

    stages: list[StageDifference]
    equal_pixels: float

    def passes(self, tolerance: float) -> bool:
        return all(s.within(tolerance) for s in self.stages) and self.equal_pixels >= _EQUAL_PIXELS


def measure_parity(folder: Path) -> Parity:
    """Run the folder's image through the folder's weights in float32 on the CPU.

    Raises:
        CheckpointError: the folder is incomplete, or its weights do not fit its sizes.
    """
    config = read_reference_config(folder / "config.json")
    weights = folder / "backbone.pth", folder / "m2f_head.pth"
    model = load_published(config, *weights, new_classifier=False)
    expected = TensorFile(folder / "expected.safetensors")
    reference = {name: expected.copy(name) for name in expected.names}
    if lacking := {"image", "semantic_argmax"} - set(reference):
        raise CheckpointError(f"{expected.path} lacks the tensors {', '.join(sorted(lacking))}")
    with torch.no_grad():
        ours = dict(run_stages(model, reference.pop("image")))
    classes = reference.pop("semantic_argmax")
    in_order = sorted(reference, key=[*ours, *reference].index)
    stages = [
        StageDifference(stage=n, difference=_difference(ours.get(n), reference[n]))
        for n in in_order
    ]
    equal = (ours["semantic_argmax"] == classes).double().mean().item()
    return Parity(stages=stages, equal_pixels=equal)


def run_stages(model: Segmenter, image_B3HW: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Every named stage's output, through the same modules that inference runs."""
    taken = model.backbone(image_B3HW)
    for i, (patches, cls) in enumerate(taken):
        yield f"backbone.layer{i}.patch", patches
        yield f"backbone.layer{i}.cls", cls
    features = model.adapter(image_B3HW, taken)
    for i, feature in enumerate(features):
        yield f"adapter.{i + 1}", feature
    mask_features, scales = model.pixel_decoder(features)
    yield "pixel_decoder.mask_features", mask_features
    for i, scale in enumerate(scales):
        yield f"pixel_decoder.multi_scale.{i}", scale
    *earlier, last = model.query_decoder(scales, mask_features, every_layer=True)
    for i, output in enumerate(earlier):
        yield f"predictor.aux{i}.pred_logits", output.class_logits
        yield f"predictor.aux{i}.pred_masks", output.mask_logits
    yield "predictor.pred_logits", last.class_logits
    yield "predictor.pred_masks", last.mask_logits
    height, width = image_B3HW.shape[2:]
    yield "semantic_half", torch.stack(list(_scores(last, (height // 2, width // 2))))
    full = _scores(last, (height, width))
    yield "semantic_argmax", torch.stack([resized_argmax(s, (height, width)) for s in full])


def _scores(output: QueryOutput, size: tuple[int, int]) -> Iterator[Tensor]:
    pairs = zip(output.class_logits, output.mask_logits, strict=True)
    return (class_scores(logits, masks, size) for logits, masks in pairs)


def _difference(ours: Tensor | None, reference: Tensor) -> float:
    if ours is None or ours.shape != reference.shape:
        return float("inf")
    scale = reference.double().std().clamp(min=1e-12)
    return ((ours.double() - reference.double()).abs().max() / scale).item()


def read_reference_config(path: Path) -> SegmenterConfig:
    """The sizes of a reference folder.

    Raises:
        CheckpointError: the file is missing, not JSON, or lacks a size.
    """
    try:
        values = json.loads(path.read_text())
        return SegmenterConfig(
            name=values.get("name", path.parent.name),
            backbone=_backbone(values["backbone"]),
            adapter=_adapter(values["adapter"]),
            decoder=_decoder(values["head"]),
            classes=values["head"]["num_classes"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path} cannot be read as a reference's sizes: {what}") from error


def _backbone(values: dict[str, Any]) -> BackboneConfig:
    ffn = values["ffn_layer"]
    return BackboneConfig(
        embed_dim=values["embed_dim"],
        depth=values["depth"],
        heads=values["num_heads"],
        ffn="mlp" if ffn == "mlp" else "swiglu",
        ffn_ratio=values["ffn_ratio"],
        ffn_multiple=_SWIGLU_MULTIPLE.get(ffn, 8),
        qkv_bias=values["qkv_bias"],
        local_cls_norm=values.get("untie_global_and_local_cls_norm", False),
        patch_size=values["patch_size"],
        storage_tokens=values["n_storage_tokens"],
        rope_base=values["rope_base"],
        norm_eps=values["norm_eps"],
    )


def _adapter(values: dict[str, Any]) -> AdapterConfig:
    return AdapterConfig(
        stem_width=values["conv_inplane"],
        heads=values["deform_num_heads"],
        points=values["n_points"],
        value_ratio=values["deform_ratio"],
        ffn_ratio=values["cffn_ratio"],
    )


def _decoder(values: dict[str, Any]) -> DecoderConfig:
    return DecoderConfig(
        width=values["hidden_dim"],
        heads=values["nheads"],
        feedforward=values["dim_feedforward"],
        pixel_layers=values["encoder_layers"],
        query_layers=values["decoder_layers"],
        queries=values["num_queries"],
    )
