"""Names of the Hugging Face DINOv3 backbone (`model_type` dinov3_vit), by this package's names.

That layout has separate query, key and value projections, no key bias and no RoPE periods.
"""

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from dinoidd.checkpoint.tensor_file import Tensors
from dinoidd.errors import CheckpointError
from dinoidd.models.config import BackboneConfig

_FIXED = {
    "cls_token": "embeddings.cls_token",
    "storage_tokens": "embeddings.register_tokens",
    "mask_token": "embeddings.mask_token",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_IN_BLOCK = {
    "attn.proj": "attention.o_proj",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.up_proj",
    "mlp.w3": "mlp.down_proj",
}
_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.(.+)")


class HuggingFaceBackbone:
    """Reads a Hugging Face directory's tensors by this package's names."""

    def __init__(self, tensors: Tensors, config: BackboneConfig) -> None:
        self._tensors = tensors
        self._config = config
        # transformers 5 keeps "model." off disk; some exports have it
        self._stored = {name.removeprefix("model."): name for name in tensors.names}
        self._used: set[str] = set()

    def names(self, wanted: set[str]) -> set[str]:
        """Which of the wanted names can be read, and what the directory holds beyond them."""
        found = {name for name in wanted if all(s in self._stored for s in self._sources(name))}
        used = {source for name in found for source in self._sources(name)}
        return found | (set(self._stored) - used)

    def copy(self, name: str, dtype: torch.dtype | None) -> Tensor:
        parts = [self._tensors.copy(self._stored[s], dtype) for s in self._sources(name)]
        if name.endswith("mask_token"):
            return parts[0].flatten(0, 1)
        if name.endswith("attn.qkv.bias"):
            query, value = parts
            return torch.cat([query, torch.zeros_like(query), value])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _sources(self, name: str) -> list[str]:
        """The stored tensors that one of ours is made of, in order."""
        block = _BLOCK.fullmatch(name)
        if not block:
            return [_FIXED.get(name.removeprefix("backbone."), name)]
        prefix, rest = f"layer.{block[1]}.", block[2]
        if rest == "attn.qkv.weight":
            return [f"{prefix}attention.{p}_proj.weight" for p in "qkv"]
        if rest == "attn.qkv.bias":
            return [f"{prefix}attention.{p}_proj.bias" for p in "qv"]
        for ours, theirs in _IN_BLOCK.items():
            if rest == ours or rest.startswith(ours + "."):
                return [prefix + theirs + rest.removeprefix(ours)]
        return [prefix + rest]


def computed_in_model(name: str) -> bool:
    """Whether the layout leaves the tensor to the model: constants, and a norm that is unused."""
    return name.endswith(("rope_embed.periods", "attn.qkv.bias_mask")) or ".local_cls_norm." in name


def check_config(directory: Path, config: BackboneConfig) -> None:
    """Refuse a directory of another model or another size.

    Raises:
        CheckpointError: config.json is missing, of another kind, or contradicts the preset.
    """
    path = directory / "config.json"
    try:
        found = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a JSON object: {error}") from error
    expected = {
        "model_type": "dinov3_vit",
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_hidden,
        "num_register_tokens": config.storage_tokens,
        "patch_size": config.patch_size,
    }
    wrong = [
        f"{k} is {found.get(k)!r}, not {v!r}" for k, v in expected.items() if found.get(k) != v
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit the preset: " + "; ".join(wrong))
