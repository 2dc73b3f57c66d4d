"""Sliding windows through all that segments: the API, the stages of a run, evaluation, commands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_table, varied_model
from test_stages import reader

import dinoidd
from dinoidd.checkpoint.file import save_checkpoint
from dinoidd.cli import main
from dinoidd.config import SegmentConfig, Windows
from dinoidd.data.manifest import ManifestInfo
from dinoidd.errors import ConfigError, ImageError, OutputError
from dinoidd.evaluation.model_predictions import ModelPredictions
from dinoidd.inference.source import ModelSource
from dinoidd.segment.packed_classes import unpack_classes
from dinoidd.segment.preparation import make_record, run_identity
from dinoidd.segment.run_record import check_same
from dinoidd.segment.stages import SegmentImages
from dinoidd.segmenter import Segmenter
from dinoidd.storage import DEFAULT_OPTIONS, StorageOptions, Store
from dinoidd.upkeep import retry

HOW = Windows(size=64, stride=48, short_side=80, scales=(0.8, 1.0), flip=True, blend="hann")
SIZES = [(90, 131), (40, 200), (64, 64)]
MANIFEST = ManifestInfo(rows=3, files=1, bytes=9, input="/in", skipped={}, sha256="s")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(varied_model(), small_table(), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of noise in large squares."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        squares = draw.integers(0, 256, (-(-height // 20), -(-width // 20), 3), dtype=np.uint8)
        pixels = squares.repeat(20, 0).repeat(20, 1)[:height, :width]
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint: str, folder: Path) -> list[np.ndarray]:
    """The classes of each image, segmented alone."""
    source = ModelSource(checkpoint=checkpoint)
    segmenter = Segmenter(source, device="cpu", windows=HOW, batch_size=1)
    return [segmenter.predict(path).classes for path in sorted(folder.iterdir())]


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert (found == expected).mean() > 0.995


def test_segmenter__a_list_is_its_images(
    checkpoint: str, folder: Path, expected: list[np.ndarray]
) -> None:
    segmenter = Segmenter(
        ModelSource(checkpoint=checkpoint), device="cpu", windows=HOW, batch_size=5
    )
    results = segmenter.predict(sorted(folder.iterdir()), probabilities=True)
    for result, classes in zip(results, expected, strict=True):
        assert_alike(result.classes, classes)
        assert result.probabilities is not None
        assert_alike(result.probabilities.argmax(0), classes)
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-4)
    assert len(np.unique(expected[0])) > 1, "a test on one class shows nothing"


def test_segmenter__windows_see_what_the_square_does_not(checkpoint: str, folder: Path) -> None:
    whole = Segmenter(ModelSource(checkpoint=checkpoint), device="cpu").predict(folder / "1.png")
    how = replace(HOW, scales=(1.0,), flip=False)
    source = ModelSource(checkpoint=checkpoint)
    windows = Segmenter(source, device="cpu", windows=how).predict(folder / "1.png")
    assert (whole.classes != windows.classes).any()


def test_segmenter__a_strip_costs_itself(checkpoint: str, folder: Path) -> None:
    segmenter = Segmenter(
        ModelSource(checkpoint=checkpoint), device="cpu", windows=HOW, max_pixels=100_000
    )
    strip = Image.new("RGB", (4000, 2))
    images = [segmenter.read(image) for image in (folder / "0.png", strip, folder / "2.png")]
    first, error, last = segmenter.segment(images)
    assert isinstance(error, ImageError)
    assert error.kind == "too_large"
    assert not isinstance(first, ImageError)
    assert not isinstance(last, ImageError)
    only = segmenter.segment(images[1:2])
    assert [type(result) for result in only] == [ImageError]


def test_segmenter__load_takes_windows(
    checkpoint: str, folder: Path, expected: list[np.ndarray]
) -> None:
    how = dinoidd.Windows(
        size=64, stride=48, short_side=80, scales=(0.8, 1.0), flip=True, blend="hann"
    )
    segmenter = dinoidd.Segmenter.load(checkpoint, device="cpu", windows=how)
    assert_alike(segmenter.predict(folder / "0.png").classes, expected[0])


def test_segmenter__image_size_is_of_whole_images(checkpoint: str) -> None:
    with pytest.raises(ConfigError, match="image size 64 is of whole images"):
        Segmenter(ModelSource(checkpoint=checkpoint), image_size=64, windows=HOW)


def test_stages__classes_are_those_of_the_segmenter(
    checkpoint: str, folder: Path, tmp_path: Path, expected: list[np.ndarray]
) -> None:
    before = torch.get_num_threads()
    read = replace(reader(folder, tmp_path), windows=HOW, max_pixels=10**6)
    source = ModelSource(checkpoint=checkpoint)
    rows = SegmentImages(source, 64, 2, "cpu", before, windows=HOW)(read(0)).to_pylist()
    for row, classes in zip(rows, expected, strict=True):
        assert row["error_kind"] is None
        found = unpack_classes(row["classes"], (row["height"], row["width"]))
        assert_alike(found, classes)


def test_model_predictions__classes_are_those_of_the_segmenter(
    checkpoint: str, folder: Path, expected: list[np.ndarray]
) -> None:
    source = ModelSource(checkpoint=checkpoint)
    predictions = ModelPredictions(
        uri=str(folder), options=DEFAULT_OPTIONS, source=source, device="cpu", windows=HOW
    )
    how = "(float32, windows of 64, mean of 4 views)"
    assert predictions.title == f"{checkpoint} {how} on {folder}"
    for i, classes in enumerate(expected):
        assert_alike(predictions.open((folder / f"{i}.png").read_bytes()), classes)


def config_of(**changes: object) -> SegmentConfig:
    return SegmentConfig(**{"input": "/in", "output": "/out", "preset": "tiny", **changes})


def identity_of(config: SegmentConfig) -> dict[str, object]:
    return run_identity(config, MANIFEST, ModelSource(preset="tiny").describe(), 256)


def test_identity__windows_decide_the_rows() -> None:
    whole, mine = identity_of(config_of()), identity_of(config_of(windows=HOW))
    assert mine == json.loads(json.dumps(mine)), "as it comes back from the record"
    assert whole["fingerprint"] != mine["fingerprint"]
    begun = make_record(
        config_of(windows=HOW), MANIFEST, ModelSource(preset="tiny").describe(), mine, 1
    )
    output = Store.open("/out")
    check_same(begun, identity_of(config_of(windows=HOW)), output)
    with pytest.raises(OutputError, match=r"windows was \{'size': 64, .*\} and is None"):
        check_same(begun, whole, output)
    other = config_of(windows=replace(HOW, flip=False))
    with pytest.raises(OutputError, match=r"'flip': True.*'flip': False"):
        check_same(begun, identity_of(other), output)


def test_identity__of_runs_that_are_older_than_windows() -> None:
    config, described = config_of(), ModelSource(preset="tiny").describe()
    identity = identity_of(config)
    older = {name: value for name, value in identity.items() if name != "windows"}
    begun = make_record(config, MANIFEST, described, older, 1)
    check_same(begun, identity, Store.open("/out"))


def test_make_record__pieces_of_images_at_their_own_size_are_small() -> None:
    native, described = replace(HOW, short_side=None), ModelSource(preset="tiny").describe()
    for windows, rows_per_chunk, expected in (
        (HOW, None, 64),
        (native, None, 8),
        (native, 16, 16),
    ):
        config = config_of(windows=windows, rows_per_chunk=rows_per_chunk)
        manifest = replace(MANIFEST, rows=10_000)
        record = make_record(config, manifest, described, identity_of(config), 1)
        assert record.layout.rows_per_chunk == expected


@pytest.mark.parametrize("windows", [None, HOW])
def test_retry__takes_the_windows_of_the_run(windows: Windows | None) -> None:
    config = config_of(windows=windows)
    described = ModelSource(preset="tiny").describe()
    record = make_record(config, MANIFEST, described, identity_of(config), 1)
    record = replace(record, config=json.loads(json.dumps(record.config)))
    request = retry.RetryRequest(output="/out", storage=StorageOptions())
    again = retry._config(record, request, Store.open("/out"))
    assert again.windows == windows
    assert again.image_size == (256 if windows is None else None)


def test_predict__command(
    checkpoint: str, folder: Path, tmp_path: Path, expected: list[np.ndarray]
) -> None:
    line = f"predict {folder} --checkpoint {checkpoint} --output {tmp_path} --device cpu"
    how = "--window 64 --stride 48 --short-side 80 --blend hann --tta 0.8,1"
    assert main([*line.split(), *how.split()]) == 0
    for i, classes in enumerate(expected):
        assert_alike(np.load(tmp_path / f"{i}_segmentation" / "segmentation_raw.npy"), classes)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("predict a.png --preset tiny --output o --stride 9", "--stride 9 goes with --window N"),
        ("segment --input a --preset tiny --output o --window 9", "--window 9: at least 32"),
        (
            "segment --input a --preset tiny --output o --window 64 --image-size 64",
            "--image-size 64 is of whole images: leave it out with --window",
        ),
        (
            "evaluate --ground-truth a --predictions b --tta",
            "--window and --tta go with --checkpoint: masks are made already",
        ),
        ("plan segment --input a --preset tiny --blend hann", "--blend hann goes with --window"),
    ],
)
def test_commands__mistakes(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert told in capsys.readouterr().err
