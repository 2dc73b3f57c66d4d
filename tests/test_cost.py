"""Parameters and FLOP of the presets, as published, counted on the meta device."""

import json
from dataclasses import replace

import pytest
import torch

from dinoidd.cli import main
from dinoidd.errors import ConfigError
from dinoidd.models import PRESETS, meta_segmenter, preset
from dinoidd.models.backbone import Backbone
from dinoidd.models.config import resized
from dinoidd.models.cost import measure_cost

BACKBONES = {
    "vits16": 21_601_152,
    "vits16plus": 28_697_472,
    "vitb16": 85_669_632,
    "vitl16": 303_154_176,
    "vitl16plus": 403_915_776,
    "vith16plus": 840_633_600,
    "vit7b16": 6_716_043_264,
}
# TFLOP of one image: backbone, adapter, pixel decoder, query decoder.
FLOPS = {
    ("vit7b16", 512): (14.51, 1.81, 3.44, 0.45),
    ("vit7b16", 896): (48.64, 5.55, 10.53, 1.18),
    ("vitl16", 512): (0.73, 0.14, 3.17, 0.45),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone__published_parameters(name: str) -> None:
    with torch.device("meta"):
        model = Backbone(preset(name).backbone)
    assert sum(p.numel() for p in model.parameters()) == BACKBONES[name]


def test_presets__hold_all_published_ones() -> None:
    assert list(PRESETS) == ["tiny", "small", *BACKBONES]


def test_vit7b16__published_parts() -> None:
    model = meta_segmenter(resized(preset("vit7b16"), classes=150))
    parts = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
    assert parts["backbone"] + parts["adapter"] == 6_943_128_000
    assert parts["pixel_decoder"] + parts["query_decoder"] == 700_335_639
    assert sum(parts.values()) == 7_643_463_639


def test_model_command__vit7b16_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "vit7b16", "--classes", "idd", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["frozen_parameters"] == 7_643_154_240
    assert cost["trainable_parameters"] == 53_274
    assert cost["no_object_parameters"] == 2_049
    assert sum(cost["parameters_by_part"].values()) == 7_643_154_240 + 53_274 + 2_049
    assert cost["flops_per_image"] == pytest.approx(20.2e12, rel=0.02)
    assert sum(cost["flops_by_part"].values()) == cost["flops_per_image"]
    assert (cost["preset"], cost["classes"], cost["image_size"]) == ("vit7b16", 26, 512)


@pytest.mark.parametrize(("name", "size"), FLOPS)
def test_cost__published_flops(name: str, size: int) -> None:
    cost = measure_cost(preset(name), size)
    *others, queries = (f / 1e12 for f in cost.flops_by_part.values())
    *expected, most = FLOPS[name, size]
    # Half of a step of a table that is rounded to 0.01, or 2 percent.
    assert others == [pytest.approx(e, rel=0.02, abs=0.005) for e in expected]
    assert 0.8 * most < queries < 1.02 * most  # attention masks are made at low resolution
    assert cost.flops_per_image == sum(cost.flops_by_part.values())


def test_cost__of_bytes_and_sizes() -> None:
    cost = measure_cost(preset("tiny"))
    assert cost.image_size == preset("tiny").image_size
    assert cost.bf16_bytes == 2 * sum(cost.parameters_by_part.values())
    larger = measure_cost(resized(preset("tiny"), classes=26, decoder={"queries": 64}))
    assert larger.flops_by_part["query_decoder"] > cost.flops_by_part["query_decoder"]
    assert larger.parameters_by_part["query_decoder"] - cost.parameters_by_part[
        "query_decoder"
    ] == 2 * 32 * (preset("tiny").decoder.width)


def test_cost__batch_norm_statistics_are_no_parameters() -> None:
    config = replace(preset("tiny"), classes=3)
    model = meta_segmenter(config)
    cost = measure_cost(config)
    assert sum(cost.parameters_by_part.values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size", [0, -32, 100])
def test_cost__image_size_that_is_no_multiple_of_32(size: int) -> None:
    with pytest.raises(ConfigError, match=f"image_size {size} is not a positive multiple of 32"):
        measure_cost(preset("tiny"), size)


def test_model_command__text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "tiny", "--query-layers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny, 26 classes (idd)"
    assert "FLOP at 256x256" in lines[5]
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vit9"], "unknown preset 'vit9'"),
        (["tiny", "--classes", "nothing"], "unknown class table 'nothing'"),
        (["tiny", "--decoder-width", "40"], "width 40 is not a multiple of 32"),
        (["tiny", "--queries", "0"], "queries 0: at least 1 is needed"),
        (["tiny", "--image-size", "0"], "image_size 0 is not a positive multiple of 32"),
    ],
)
def test_model_command__wrong_argument(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dinoidd model: ")
    assert told in line
