"""The network. Needs torch alone: no Ray, no storage, no files."""

from dinoidd.models.config import (
    PRESETS,
    AdapterConfig,
    BackboneConfig,
    DecoderConfig,
    SegmenterConfig,
    preset,
)
from dinoidd.models.segmenter import Segmenter, meta_segmenter, random_segmenter

__all__ = [
    "PRESETS",
    "AdapterConfig",
    "BackboneConfig",
    "DecoderConfig",
    "Segmenter",
    "SegmenterConfig",
    "meta_segmenter",
    "preset",
    "random_segmenter",
]
