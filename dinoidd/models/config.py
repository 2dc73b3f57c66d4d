"""Sizes of the segmenter, and the presets that have a name."""

from dataclasses import dataclass, field, replace

from dinoidd.errors import ConfigError

HEADS = ("mask2former", "linear")
# Of RGB in 0..1, for weights trained on web images (LVD-1689M) and on satellite ones (SAT-493M).
LVD_MEAN, LVD_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAT_MEAN, SAT_STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A DINOv3 vision transformer (arXiv 2508.10104)."""

    embed_dim: int
    depth: int  # blocks; at least 4, four of them feed the adapter
    heads: int  # head width embed_dim / heads must be a multiple of 4 (RoPE over two axes)
    ffn: str = "mlp"  # "mlp" (GELU) or "swiglu"
    ffn_ratio: float = 4.0  # hidden width over embed_dim, before SwiGLU's 2/3
    ffn_multiple: int = 8  # SwiGLU's hidden width is rounded up to a multiple of this
    qkv_bias: bool = True
    local_cls_norm: bool = False  # the 7B file holds one more norm, unused here
    patch_size: int = 16  # pixels
    storage_tokens: int = 4
    rope_base: float = 100.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _refuse(
            "backbone",
            _below_one(self, "embed_dim", "heads"),
            (self.ffn not in ("mlp", "swiglu"), f"ffn '{self.ffn}' is neither 'mlp' nor 'swiglu'"),
            (self.depth < 4, f"depth {self.depth} is less than the 4 blocks the adapter reads"),
            (
                self.embed_dim % max(4 * self.heads, 1) != 0,
                f"embed_dim {self.embed_dim} is not a multiple of 4 x heads ({self.heads})",
            ),
            (
                self.patch_size != 16,
                f"patch_size {self.patch_size} (the adapter's strides need 16)",
            ),
        )

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.heads

    @property
    def taken_blocks(self) -> tuple[int, ...]:
        """Indices of the four blocks whose output the adapter reads."""
        if self.depth == 24:
            return (4, 11, 17, 23)
        return tuple(i * (self.depth // 4) - 1 for i in (1, 2, 3, 4))

    @property
    def ffn_hidden(self) -> int:
        hidden = int(self.embed_dim * self.ffn_ratio)
        if self.ffn == "mlp":
            return hidden
        return -(-int(hidden * 2 / 3) // self.ffn_multiple) * self.ffn_multiple


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """ViT-Adapter (arXiv 2205.08534): the extractors' side only."""

    stem_width: int = (
        64  # channels of the convolution stem; later stages have 2, 4 and 4 times that
    )
    heads: int = 16
    points: int = 4  # sampling points a head
    value_ratio: float = 0.5  # width of the sampled values over embed_dim
    ffn_ratio: float = 0.25


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Mask2Former (arXiv 2112.01527): pixel decoder and transformer decoder."""

    width: int = 2048  # channels of both; a multiple of 32 (GroupNorm) and of heads
    heads: int = 16
    points: int = 4  # sampling points a head and level, in the pixel decoder
    feedforward: int = 4096
    pixel_layers: int = 6
    query_layers: int = 9
    queries: int = 100

    def __post_init__(self) -> None:
        _refuse(
            "decoder",
            _below_one(self, "width", "heads", "pixel_layers", "query_layers", "queries"),
            (self.width % 32 != 0, f"width {self.width} is not a multiple of 32 (GroupNorm)"),
            (
                self.width % max(self.heads, 1) != 0,
                f"width {self.width} not divisible by {self.heads} heads",
            ),
        )


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """The whole model. `classes` leaves out the no-object row."""

    name: str
    backbone: BackboneConfig
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    head: str = "mask2former"  # or "linear": on the backbone alone, without adapter and decoder
    classes: int = 26
    image_size: int = 512  # pixels; the square that whole-image inference resizes to
    mean: tuple[float, float, float] = LVD_MEAN  # of RGB in 0..1, before the backbone
    std: tuple[float, float, float] = LVD_STD

    def __post_init__(self) -> None:
        width = self.backbone.embed_dim * self.adapter.value_ratio
        _refuse(
            "segmenter",
            (self.head not in HEADS, f"head '{self.head}': there are {', '.join(HEADS)}"),
            (not 1 <= self.classes <= 255, f"{self.classes} classes (1 to 255)"),
            (
                self.image_size < 32 or self.image_size % 32 != 0,
                f"image_size {self.image_size} is not a positive multiple of 32",
            ),
            (
                width % self.adapter.heads != 0,
                f"adapter value width {width:g} not divisible by {self.adapter.heads} heads",
            ),
        )


def _refuse(part: str, *checks: tuple[bool, str]) -> None:
    """Tell all mistakes of a configuration at once."""
    problems = [message for wrong, message in checks if wrong]
    if problems:
        raise ConfigError(f"{part} configuration: " + "; ".join(problems))


def _below_one(config: object, *names: str) -> tuple[bool, str]:
    """The check that these fields are at least 1."""
    low = [f"{name} {getattr(config, name)}" for name in names if getattr(config, name) < 1]
    return bool(low), f"{', '.join(low)}: at least 1 is needed"


def _vit(dim: int, depth: int, heads: int, **more: object) -> BackboneConfig:
    return BackboneConfig(embed_dim=dim, depth=depth, heads=heads, **more)  # type: ignore[arg-type]


_LINEAR = "-linear"  # behind a preset's name
_SWIGLU = {"ffn": "swiglu", "ffn_ratio": 6.0}
_LAPTOP_ADAPTER = AdapterConfig(stem_width=16, heads=4)
_LAPTOP_DECODER = DecoderConfig(
    width=64, heads=4, feedforward=128, pixel_layers=1, query_layers=3, queries=32
)

PRESETS = {
    preset.name: preset
    for preset in (
        SegmenterConfig(
            name="tiny",
            backbone=_vit(64, 4, 2),
            adapter=replace(_LAPTOP_ADAPTER, stem_width=8, points=2),
            decoder=replace(_LAPTOP_DECODER, points=2),
            image_size=256,
        ),
        SegmenterConfig(
            name="small",
            backbone=_vit(192, 8, 6),
            adapter=replace(_LAPTOP_ADAPTER, stem_width=32, heads=8),
            decoder=replace(_LAPTOP_DECODER, width=128, heads=8, feedforward=256, pixel_layers=2),
            image_size=256,
        ),
        SegmenterConfig(name="vits16", backbone=_vit(384, 12, 6)),
        SegmenterConfig(name="vits16plus", backbone=_vit(384, 12, 6, **_SWIGLU)),
        SegmenterConfig(name="vitb16", backbone=_vit(768, 12, 12)),
        SegmenterConfig(name="vitl16", backbone=_vit(1024, 24, 16)),
        SegmenterConfig(name="vitl16plus", backbone=_vit(1024, 24, 16, **_SWIGLU)),
        SegmenterConfig(name="vith16plus", backbone=_vit(1280, 32, 20, **_SWIGLU)),
        SegmenterConfig(
            name="vit7b16",
            backbone=_vit(
                *(4096, 40, 32),
                ffn="swiglu",
                ffn_ratio=3.0,
                ffn_multiple=64,
                qkv_bias=False,
                local_cls_norm=True,
            ),
        ),
    )
}


def preset(name: str) -> SegmenterConfig:
    """The configuration of that name; `NAME-linear` is the preset's backbone with a linear head.

    Raises:
        ConfigError: there is no such preset; the message lists those there are.
    """
    backbone = name.removesuffix(_LINEAR)
    if backbone not in PRESETS:
        raise ConfigError(
            f"unknown preset '{name}': there are {', '.join(PRESETS)}, and each of them with a linear "
            f"head, like vitl16{_LINEAR}"
        )
    config = PRESETS[backbone]
    return config if backbone == name else replace(config, name=name, head="linear")


def resized(
    config: SegmenterConfig, *, classes: int, decoder: dict[str, int] | None = None
) -> SegmenterConfig:
    """The same model for another number of classes, and with other decoder sizes."""
    return replace(config, classes=classes, decoder=replace(config.decoder, **(decoder or {})))
