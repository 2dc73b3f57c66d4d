"""The network against a plain second writing of it, in float64."""

from dataclasses import replace

import plain_model as plain
import pytest
import torch
from small_models import BACKBONE, SMALL, drawn_images, drawn_model
from torch import Tensor, nn

from dinoidd.errors import ConfigError
from dinoidd.models import (
    PRESETS,
    BackboneConfig,
    DecoderConfig,
    Segmenter,
    SegmenterConfig,
    preset,
    random_segmenter,
)
from dinoidd.models.positions import sine_positions
from dinoidd.models.query_decoder import QueryDecoder
from dinoidd.models.rope import RotaryEmbedding, rotate

HEADS = SMALL.decoder.heads


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return drawn_model()


def weights(module: nn.Module) -> plain.Weights:
    """The module's tensors in float64."""
    return {n: t.detach().double() for n, t in module.state_dict().items()}


def assert_near(ours: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """The largest difference over the expected tensor's standard deviation."""
    assert ours.shape == expected.shape
    difference = (ours.double() - expected).abs().max() / expected.std()
    assert difference < tolerance, f"{difference:.2e}"


@torch.no_grad()
def test_adapter__plain_formula(model: Segmenter) -> None:
    image = drawn_images()
    taken = model.backbone(image)
    ours = model.adapter(image, taken)
    patches = [x[0].double() for x, _ in taken]
    expected = plain.adapter(
        weights(model.adapter), image[0].double(), patches, SMALL.adapter.heads
    )
    assert [tuple(f.shape[2:]) for f in ours] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for feature, reference in zip(ours, expected, strict=True):
        assert_near(feature[0], reference)


@torch.no_grad()
def test_pixel_decoder__plain_formula(model: Segmenter) -> None:
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    features = [torch.randn(1, 32, *s, generator=torch.Generator().manual_seed(1)) for s in sizes]
    mask_features, scales = model.pixel_decoder(features)
    expected, expected_scales = plain.pixel_decoder(
        weights(model.pixel_decoder), [f[0].double() for f in features], HEADS, layers=2
    )
    assert_near(mask_features[0], expected)
    assert [tuple(s.shape[2:]) for s in scales] == sizes[:0:-1]
    for scale, reference in zip(scales, expected_scales, strict=True):
        assert_near(scale[0], reference)


def decoder_inputs(seed: int) -> tuple[list[Tensor], Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = [(2, 3), (4, 6), (8, 12), (16, 24)]
    *scales, mask_features = (torch.randn(1, 32, *s, generator=draw) for s in sizes)
    return scales, mask_features


def plain_queries(decoder: QueryDecoder, scales: list[Tensor], mask_features: Tensor):
    scales = [s[0].double() for s in scales]
    return plain.query_decoder(weights(decoder), scales, mask_features[0].double(), HEADS, layers=4)


@torch.no_grad()
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_query_decoder__plain_formula(model: Segmenter, seed: int) -> None:
    scales, mask_features = decoder_inputs(seed)
    ours = model.query_decoder(scales, mask_features, every_layer=True)
    expected = plain_queries(model.query_decoder, scales, mask_features)
    for output, (logits, masks) in zip(ours, expected, strict=True):
        assert_near(output.class_logits[0], logits)
        assert_near(output.mask_logits[0], masks)
    (last,) = model.query_decoder(scales, mask_features)
    assert torch.equal(last.mask_logits, ours[-1].mask_logits)


@torch.no_grad()
def test_query_decoder__query_with_empty_mask_looks_everywhere(model: Segmenter) -> None:
    scales, mask_features = decoder_inputs(1)
    mask_features = mask_features.abs()
    decoder = drawn_model().query_decoder
    decoder.mask_embed.layers[2].bias.fill_(-100)  # every mask is far below its threshold
    allowed = decoder._allowed(decoder.query_feat.weight[None], mask_features)
    assert allowed.all()
    (ours,) = decoder(scales, mask_features)
    expected = plain_queries(decoder, scales, mask_features)[-1]
    assert_near(ours.class_logits[0], expected[0])


@pytest.mark.parametrize(("height", "width"), [(2, 3), (5, 1), (1, 1)])
def test_sine_positions__plain_formula(height: int, width: int) -> None:
    ours = sine_positions(height, width, 16, torch.device("cpu"))
    torch.testing.assert_close(ours.double(), plain.sine(height, width, 16), rtol=0, atol=1e-5)


def test_rope__rotates_pairs_by_their_angle() -> None:
    height, width, d = 3, 5, 8
    rope = RotaryEmbedding(d, 100.0, prefix=1)
    x = torch.randn(1, 1 + height * width, 2, d, dtype=torch.float64)
    turned = rotate(x.float(), *rope.tables(height, width))[0, :, 1].double()
    assert torch.equal(turned[0], x[0, 0, 1].float().double())
    for token in range(height * width):
        row, column = divmod(token, width)
        y, x_ = (row + 0.5) / height * 2 - 1, (column + 0.5) / width * 2 - 1
        angles = [2 * torch.pi * v / 100 ** (2 * i / (d / 2)) for v in (y, x_) for i in range(2)]
        pair = torch.complex(x[0, token + 1, 1, : d // 2], x[0, token + 1, 1, d // 2 :])
        expected = pair * torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
        found = torch.complex(turned[token + 1, : d // 2], turned[token + 1, d // 2 :])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_rope__tables_follow_the_size() -> None:
    rope = RotaryEmbedding(8, 100.0)
    first = rope.tables(2, 3)
    assert rope.tables(2, 3)[0] is first[0]
    assert rope.tables(3, 2)[0].shape == first[0].shape
    assert not torch.equal(rope.tables(3, 2)[0], first[0])
    assert torch.equal(rope.tables(2, 3)[0], first[0])


def test_qkv__keys_have_no_bias(model: Segmenter) -> None:
    qkv = model.backbone.blocks[0].attn.qkv
    query, key, value = qkv(torch.zeros(1, 1, 32)).chunk(3, dim=-1)
    assert key.abs().max() == 0
    assert query.abs().min() > 0
    assert value.abs().min() > 0


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(4, (0, 1, 2, 3)), (12, (2, 5, 8, 11)), (24, (4, 11, 17, 23)), (40, (9, 19, 29, 39))],
)
def test_backbone__taken_blocks(depth: int, blocks: tuple[int, ...]) -> None:
    assert replace(BACKBONE, depth=depth).taken_blocks == blocks


@torch.no_grad()
def test_segmenter__batch_is_its_images_one_by_one(model: Segmenter) -> None:
    images = drawn_images(3)
    (together,) = model(images)
    for i in range(3):
        (alone,) = model(images[i : i + 1])
        assert_near(together.class_logits[i], alone.class_logits[0].double(), 1e-4)
        assert_near(together.mask_logits[i], alone.mask_logits[0].double(), 1e-4)


@torch.no_grad()
def test_segmenter__bfloat16_is_near_float32() -> None:
    from dinoidd.checkpoint.load import cast

    (full,) = drawn_model()(drawn_images())
    half_model = cast(drawn_model(), torch.bfloat16)
    (half,) = half_model(drawn_images().bfloat16())
    assert half.class_logits.dtype == half.mask_logits.dtype == torch.bfloat16
    for name in ("class_logits", "mask_logits"):
        ours, expected = getattr(half, name).double(), getattr(full, name).double()
        assert ((ours - expected).square().mean().sqrt() / expected.std()) < 0.15
        assert torch.corrcoef(torch.stack([ours.flatten(), expected.flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("size", [(64, 80), (33, 64), (100, 100)])
def test_segmenter__size_that_is_no_multiple_of_32(model: Segmenter, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"image size {size[0]}x{size[1]}: both have to be"):
        model(torch.zeros(1, 3, *size))


def test_random_segmenter__same_seed_same_weights() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (random_segmenter(SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert torch.rand(1) == expected, "the global random state was touched"
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not torch.equal(first["backbone.cls_token"], other["backbone.cls_token"])


def test_preset__unknown() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'vit9': there are tiny, small, vits16"):
        preset("vit9")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BackboneConfig(embed_dim=30, depth=2, heads=4), ("depth 2", "embed_dim 30")),
        (lambda: BackboneConfig(embed_dim=32, depth=4, heads=0), ("heads 0",)),
        (lambda: replace(BACKBONE, ffn="relu", patch_size=14), ("ffn 'relu'", "patch_size 14")),
        (lambda: DecoderConfig(width=40, heads=16), ("width 40", "16 heads")),
        (lambda: DecoderConfig(queries=0), ("queries 0",)),
        (lambda: DecoderConfig(heads=0), ("heads 0",)),
        (lambda: replace(SMALL, classes=256, image_size=100), ("256 classes", "image_size 100")),
    ],
)
def test_config__all_mistakes_at_once(make, told: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert all(words in str(caught.value) for words in told)


def test_presets__are_segmenters_named_by_their_key() -> None:
    assert all(isinstance(c, SegmenterConfig) and c.name == n for n, c in PRESETS.items())
