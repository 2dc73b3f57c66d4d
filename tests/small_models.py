"""Models small enough for a test, with every weight drawn, and files in the published format."""

from pathlib import Path

import torch
from torch import Tensor

from dinoidd.checkpoint.published_keys import published_name
from dinoidd.classes import ClassTable
from dinoidd.models import (
    AdapterConfig,
    BackboneConfig,
    DecoderConfig,
    Segmenter,
    SegmenterConfig,
    random_segmenter,
)

BACKBONE = BackboneConfig(embed_dim=32, depth=5, heads=2)
DECODER = DecoderConfig(
    width=32, heads=4, feedforward=48, pixel_layers=2, query_layers=4, queries=9
)
SMALL = SegmenterConfig(
    name="small-test",
    backbone=BACKBONE,
    adapter=AdapterConfig(stem_width=8, heads=4),
    decoder=DECODER,
    classes=5,
    image_size=64,
)


def drawn_model(config: SegmenterConfig = SMALL, seed: int = 0) -> Segmenter:
    """A segmenter none of whose weights is at a start value: no zero offsets, no norm of ones."""
    model = random_segmenter(config, seed)
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=draw)
        if name.endswith("running_var"):
            tensor.copy_(noise.abs() + 0.5)
        elif tensor.is_floating_point() and not name.endswith(("periods", "bias_mask")):
            tensor.add_(noise * (0.2 if tensor.ndim == 1 else 0.05))
    return model


def drawn_images(batch: int = 1, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    """Normalised images, [batch, 3, height, width]."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def varied_model() -> Segmenter:
    """The small model, made to see several classes in one image."""
    model = drawn_model().requires_grad_(False)
    decoder = model.query_decoder
    decoder.mask_embed.layers[2].weight *= 20
    decoder.classifier.weight *= 40
    (output,) = model(drawn_images(height=64, width=64))
    decoder.classifier.bias -= output.class_logits[0, :, :-1].mean(0)  # no class is every query's
    return model


def published_states(model: Segmenter) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's tensors under the published files' names: backbone, head."""
    state = model.state_dict()
    backbone = {published_name(n): t for n, t in state.items() if n.startswith("backbone.")}
    head = {published_name(n): t for n, t in state.items() if not n.startswith("backbone.")}
    for kind in ("weight", "bias"):
        rows = [state[f"query_decoder.{part}.{kind}"] for part in ("classifier", "no_object")]
        head[f"segmentation_model.1.predictor.class_embed.{kind}"] = torch.cat(rows)
    return backbone, head


def publish(model: Segmenter, folder: Path) -> tuple[Path, Path]:
    """Write backbone.pth and head.pth as they are published."""
    paths = folder / "backbone.pth", folder / "head.pth"
    for state, path in zip(published_states(model), paths, strict=True):
        torch.save(state, path)
    return paths


def small_table(classes: int = SMALL.classes) -> ClassTable:
    """A class table of that many classes."""
    entries = [{"name": f"class {i}", "color": [i, 2 * i, 0]} for i in range(classes)]
    return ClassTable.from_dict({"name": "small", "classes": entries})


def assert_same(ours: Segmenter, expected: dict[str, Tensor]) -> None:
    """Both hold the same tensors, bit for bit."""
    state = ours.state_dict()
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype, name
