"""The backbone beside an independent implementation: `transformers`' DINOv3, with the same weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import SMALL, drawn_images, drawn_model, publish

from dinoidd.checkpoint.load import load_published
from dinoidd.errors import CheckpointError
from dinoidd.models import BackboneConfig, Segmenter, SegmenterConfig

transformers = pytest.importorskip("transformers")

MLP = BackboneConfig(embed_dim=48, depth=8, heads=3)
GATED = BackboneConfig(embed_dim=64, depth=5, heads=2, ffn="swiglu", ffn_ratio=6)
LIKE_7B = replace(GATED, depth=4, ffn_ratio=3, ffn_multiple=64, qkv_bias=False, local_cls_norm=True)
BACKBONES = {"mlp": MLP, "gated": GATED, "like-7b": LIKE_7B}
CONSTANTS = ("rope_embed.periods", "qkv.bias_mask")


def segmenter(backbone: BackboneConfig) -> SegmenterConfig:
    adapter = replace(SMALL.adapter, heads=backbone.embed_dim // 8)
    return replace(SMALL, backbone=backbone, adapter=adapter)


def hugging_face_model(config: BackboneConfig):
    """`transformers`' model with every weight drawn: no norm of ones, no bias of zeros."""
    torch.manual_seed(3)
    model = transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.ffn_hidden,
            num_register_tokens=config.storage_tokens,
            patch_size=16,
            layer_norm_eps=config.norm_eps,
            use_gated_mlp=config.ffn == "swiglu",
            hidden_act="silu" if config.ffn == "swiglu" else "gelu",
            query_bias=config.qkv_bias,
            value_bias=config.qkv_bias,
            attn_implementation="eager",
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module", params=BACKBONES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(transformers' model, its saved directory, our configuration)."""
    config = BACKBONES[request.param]
    model = hugging_face_model(config)
    directory = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(directory)
    return model, directory, segmenter(config)


def load(config: SegmenterConfig, backbone: Path, folder: Path) -> Segmenter:
    """The backbone of one place with a drawn head."""
    _, head = publish(drawn_model(config), folder)
    return load_published(config, backbone, head, new_classifier=False)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (32, 32), (160, 64)])
def test_backbone__as_transformers(pair, tmp_path: Path, size: tuple[int, int]) -> None:
    theirs, directory, config = pair
    ours = load(config, directory, tmp_path)
    image = drawn_images(2, *size)
    states = theirs(image, output_hidden_states=True).hidden_states
    for block, (patches, cls) in zip(
        config.backbone.taken_blocks, ours.backbone(image), strict=True
    ):
        expected = theirs.norm(states[block + 1])
        found = torch.cat([cls[:, None], patches], dim=1)
        same = torch.cat([expected[:, :1], expected[:, 5:]], dim=1)
        assert ((found - same).abs().max() / same.std()) < 1e-4


def test_backbone__last_block_is_transformers_last_hidden_state(tmp_path: Path) -> None:
    theirs = hugging_face_model(MLP)
    theirs.save_pretrained(tmp_path / "model")
    ours = load(segmenter(MLP), tmp_path / "model", tmp_path)
    with torch.no_grad():
        expected = theirs(drawn_images()).last_hidden_state
        patches, cls = ours.backbone(drawn_images())[-1]
    assert ((patches - expected[:, 5:]).abs().max() / expected.std()) < 1e-4
    assert ((cls - expected[:, 0]).abs().max() / expected.std()) < 1e-4


def test_hugging_face_directory__same_state_as_published_file(pair, tmp_path: Path) -> None:
    _, directory, config = pair
    from_directory = load(config, directory, tmp_path)
    backbone, head = publish(from_directory, tmp_path)
    from_file = load_published(config, backbone, head, new_classifier=False)
    state, expected = from_directory.state_dict(), from_file.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[n], expected[n]) for n in state)


def test_hugging_face_directory__constants_are_those_of_the_model(pair, tmp_path: Path) -> None:
    _, directory, config = pair
    state = load(config, directory, tmp_path).state_dict()
    drawn = drawn_model(config).state_dict()
    names = [n for n in state if n.endswith(CONSTANTS)]
    assert len(names) == 1 + config.backbone.depth * config.backbone.qkv_bias
    assert all(torch.equal(state[n], drawn[n]) for n in names)
    assert ("backbone.local_cls_norm.weight" in state) == config.backbone.local_cls_norm


def test_hugging_face_directory__bfloat16(pair, tmp_path: Path) -> None:
    _, directory, config = pair
    full = load(config, directory, tmp_path).state_dict()
    head = tmp_path / "head.pth"
    half = load_published(
        config, directory, head, dtype=torch.bfloat16, new_classifier=False
    ).state_dict()
    assert half["backbone.rope_embed.periods"].dtype == torch.float32
    for name, tensor in half.items():
        assert torch.equal(tensor, full[name].to(tensor.dtype)), name
    floating = {n: t for n, t in half.items() if t.is_floating_point()}
    assert {n for n, t in floating.items() if t.dtype != torch.bfloat16} == {
        "backbone.rope_embed.periods"
    }


@pytest.mark.parametrize("sharded", [True, False])
def test_hugging_face_directory__shards_and_prefix(tmp_path: Path, sharded: bool) -> None:
    config = segmenter(MLP)
    directory = tmp_path / "model"
    hugging_face_model(MLP).save_pretrained(directory)
    expected = load(config, directory, tmp_path).state_dict()
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    if sharded:
        split_in_two(tensors, directory)
    else:
        prefixed = {f"model.{n}": t for n, t in tensors.items()}
        save_file(prefixed, directory / "model.safetensors")
    state = load(config, directory, tmp_path).state_dict()
    assert all(torch.equal(state[n], expected[n]) for n in expected)


def split_in_two(tensors: dict[str, torch.Tensor], directory: Path) -> None:
    """Write the tensors as `transformers` writes large models."""
    file_of = {n: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(tensors)}
    for file in set(file_of.values()):
        save_file({n: t for n, t in tensors.items() if file_of[n] == file}, directory / file)
    index = {"metadata": {}, "weight_map": file_of}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A fresh, sound directory of the MLP model."""
    hugging_face_model(MLP).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": 96}, "hidden_size is 96, not 48"),
        ({"model_type": "vit"}, "model_type is 'vit', not 'dinov3_vit'"),
        ({"num_hidden_layers": 3, "patch_size": 14}, "num_hidden_layers is 3, not 8; patch_size"),
    ],
)
def test_hugging_face_directory__config_of_another_model(
    directory: Path, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=told):
        load(segmenter(MLP), directory, tmp_path)


@pytest.mark.parametrize("text", [None, "", "[1]", "3"])
def test_hugging_face_directory__config_missing_or_broken(
    directory: Path, tmp_path: Path, text: str | None
) -> None:
    path = directory / "config.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as a JSON object"):
        load(segmenter(MLP), directory, tmp_path)


def test_hugging_face_directory__broken_index_of_shards(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        load(segmenter(MLP), directory, tmp_path)


def test_hugging_face_directory__missing_and_surplus_tensors(
    directory: Path, tmp_path: Path
) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    del tensors["layer.2.attention.q_proj.weight"]
    save_file(tensors | {"layer.2.attention.k_proj.bias": torch.zeros(48)}, path)
    with pytest.raises(CheckpointError) as caught:
        load(segmenter(MLP), directory, tmp_path)
    message = str(caught.value)
    assert "1 tensors are missing: backbone.blocks.2.attn.qkv.weight" in message
    assert "layer.2.attention.k_proj.bias" in message


def test_hugging_face_directory__no_weights(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no such checkpoint file: .*model\.safetensors"):
        load(segmenter(MLP), directory, tmp_path)
