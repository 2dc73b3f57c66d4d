"""`dinoidd bench model`: what it prints adds up, and it needs neither Ray nor storage."""

import json
import subprocess
import sys

import pytest
import torch

from dinoidd.bench.drawn_weights import drawn_segmenter
from dinoidd.bench.model import ModelBench, format_model, measure_model
from dinoidd.cli import main
from dinoidd.models import preset, random_segmenter

QUICK = ["--preset", "tiny", "--image-size", "64", "--batch-size", "2", "--device", "cpu"]
QUICK += ["--original-size", "60x40", "--repeats", "1"]
_WITHOUT_OTHERS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "s3fs", "fsspec", "duckdb", "PIL", "tensorboardX", "pyarrow"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from dinoidd.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_bench__needs_neither_ray_nor_storage_nor_images() -> None:
    command = [sys.executable, "-c", _WITHOUT_OTHERS, "bench", "model", *QUICK, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    parts = ["backbone", "adapter", "pixel_decoder", "query_decoder", "postprocess"]
    assert list(figures["seconds"]) == parts
    assert figures["tflops"] == pytest.approx(
        figures["flops_per_image"] * figures["images_per_second"] / 1e12
    )
    assert figures["share_of_peak"] == pytest.approx(figures["tflops"] / figures["peak_tflops"])
    assert figures["bench"]["dtype"] == "float32"


def test_bench__beside_the_reference() -> None:
    bench = ModelBench(
        preset="tiny", image_size=64, original_size=(40, 60), batch_size=2, baseline=True, repeats=1
    )
    speed = measure_model(bench)
    assert speed.baseline is not None
    assert speed.baseline.agreement > 0.99
    assert speed.baseline.classes_seen >= 3
    ratio = speed.images_per_second / speed.baseline.images_per_second
    assert speed.baseline.speedup == pytest.approx(ratio)
    text = format_model(speed)
    assert "the reference's arrangement, one image at a time" in text
    assert "pixel_decoder" in text


@pytest.mark.parametrize("name", ["tiny-linear", "tiny"])
def test_bench__of_a_linear_head_and_in_8_bits(name: str, capsys) -> None:
    assert main(["bench", "model", *QUICK[2:], "--preset", name, "--dtype", "int8"]) == 0
    told = capsys.readouterr().out
    assert f"{name}, 64x64, batch 2, int8" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--original-size", "12"], "--original-size 12: WIDTHxHEIGHT is needed"),
        (["--batch-size", "0"], "--batch-size 0: at least 1"),
        (["--image-size", "50"], "image_size 50 is not a positive multiple of 32"),
        (["--dtype", "fp8"], "--dtype float8 needs a GPU"),
        (["--device", "cuda"], "device 'cuda' cannot be used here"),
        (["--preset", "tiny-linear", "--baseline"], "--baseline goes with a Mask2Former head"),
    ],
)
def test_bench__bad_options_in_a_sentence(arguments: list[str], told: str, capsys) -> None:
    assert main(["bench", "model", *QUICK, *arguments]) == 2
    assert told in capsys.readouterr().err


def test_drawn_segmenter__activations_stay_finite_and_the_seed_decides() -> None:
    device, config = torch.device("cpu"), preset("small")
    model, again = (drawn_segmenter(config, torch.bfloat16, device, 3) for _ in range(2))
    assert set(model.state_dict()) == set(random_segmenter(config).state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        assert tensor.float().isfinite().all(), name
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        (output,) = model(image)
    assert output.mask_logits.float().std().item() < 1e3
    assert output.mask_logits.isfinite().all()
