"""`from dinoidd import Segmenter`: every kind of input, and the same masks as a whole run."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encoded, oriented, picture
from images import GOOD, write_samples
from PIL import Image
from segment_runs import TABLE, rows_of, save_model

import dinoidd
from dinoidd import Segmenter
from dinoidd.data.image import decode_image
from dinoidd.errors import (
    CheckpointError,
    ClassTableError,
    ConfigError,
    ImageError,
    OutputError,
    StorageError,
)
from dinoidd.models.argmax import argmax_classes, resized_argmax
from dinoidd.models.semantic import class_scores
from dinoidd.output.mask import decode_mask, open_mask
from dinoidd.prediction import inputs
from dinoidd.prediction.probabilities import resized_probabilities


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> Segmenter:
    return Segmenter.load(checkpoint, device="cpu", batch_size=2)


def scene(seed: int = 0) -> Image.Image:
    return picture(40, 60, seed=seed)


def test_import__is_lazy() -> None:
    program = (
        "import sys, dinoidd, dinoidd.cli; print('torch' in sys.modules, 'Segmenter' in dir(dinoidd));"
        "from dinoidd import Segmenter; print(Segmenter.__module__)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True", "dinoidd.segmenter"], result.stderr


def test_import__unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'dinoidd' has no attribute 'Segmentor'"):
        dinoidd.Segmentor  # noqa: B018


def test_predict__result(segmenter: Segmenter) -> None:
    result = segmenter.predict(np.asarray(scene()))
    assert (result.classes.dtype, result.classes.shape) == (np.uint8, (40, 60))
    assert result.class_table == segmenter.class_table == TABLE
    assert len(np.unique(result.classes)) >= 2, "the model says too little for the other tests"
    for value in (result.confidence, result.entropy, result.margin):
        assert 0 < value < 1
    assert result.probabilities is None
    assert (result.name, result.uri) == ("image", None)


def test_predict__statistics_are_sorted_and_whole(segmenter: Segmenter) -> None:
    result = segmenter.predict(scene())
    ids, counts = np.unique(result.classes, return_counts=True)
    assert {s.id: s.pixels for s in result.statistics} == dict(zip(ids, counts, strict=True))
    assert [s.name for s in result.statistics] == [TABLE.names[s.id] for s in result.statistics]
    pixels = [s.pixels for s in result.statistics]
    assert pixels == sorted(pixels, reverse=True)
    assert sum(s.share for s in result.statistics) == pytest.approx(1)


def test_predict__any_kind_of_input(segmenter: Segmenter, tmp_path: Path) -> None:
    image = scene()
    path = tmp_path / "a b#1%.png"
    image.save(path)
    data = path.read_bytes()
    wanted = segmenter.predict(image).classes
    kinds = [str(path), path, data, bytearray(data), memoryview(data), np.asarray(image), image]
    kinds += [Image.open(path), np.asarray(image.convert("RGBA")), np.asarray(image)[::-1][::-1]]
    for kind in kinds:
        np.testing.assert_array_equal(segmenter.predict(kind).classes, wanted, str(type(kind)))
    assert segmenter.predict(path).name == "a b#1%.png"
    assert segmenter.predict(path).uri == str(path)


def test_predict__relative_path_and_memory_url(segmenter, tmp_path, monkeypatch) -> None:
    import fsspec

    scene().save(tmp_path / "x.png")
    monkeypatch.chdir(tmp_path)
    fsspec.filesystem("memory").pipe_file("/predict/x.png", (tmp_path / "x.png").read_bytes())
    here, there = segmenter.predict("x.png"), segmenter.predict("memory://predict/x.png")
    np.testing.assert_array_equal(here.classes, there.classes)
    assert (here.uri, there.uri) == (str(tmp_path / "x.png"), "memory://predict/x.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_predict__a_pillow_image_is_read_as_its_file_is(segmenter: Segmenter, mode: str) -> None:
    image = scene().convert("L") if mode == "I;16" else scene()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    data = encoded(image, "TIFF")
    expected = decode_image(data, max_pixels=10_000).image
    assert segmenter.predict(image).image.tobytes() == expected.tobytes()


def test_predict__exif_turns_pillow_images_too(segmenter: Segmenter) -> None:
    data = encoded(scene(), "PNG", exif=oriented(6))
    result = segmenter.predict(Image.open(io.BytesIO(data)))
    assert result.classes.shape == (60, 40)
    np.testing.assert_array_equal(result.classes, segmenter.predict(data).classes)


def test_predict__list(segmenter: Segmenter) -> None:
    images = [scene(s) for s in range(5)]  # two and a half batches
    results = segmenter.predict(images)
    assert len(results) == 5
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result.classes, segmenter.predict(image).classes)
    assert segmenter.predict([]) == []
    assert isinstance(segmenter.predict((scene(),)), list)


def test_predict_each__takes_images_as_it_goes(segmenter: Segmenter) -> None:
    taken = []

    def images():
        for number in range(6):
            taken.append(number)
            yield scene(number)

    stream = segmenter.predict_each(images())
    next(stream)
    assert taken == [0, 1]  # a batch


def test_predict__same_masks_as_segment(checkpoint: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "in", GOOD)
    (tmp_path / "in" / "list.txt").unlink()
    command = [sys.executable, "-m", "dinoidd", "segment", "--input", tmp_path / "in"]
    command += ["--output", tmp_path / "out", "--checkpoint", checkpoint, "--device", "cpu"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    segmenter = Segmenter.load(checkpoint, device="cpu")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len(GOOD)
    results = segmenter.predict([row["uri"] for row in rows])
    for row, result in zip(rows, results, strict=True):
        mask = decode_mask(row["mask"]["bytes"])
        np.testing.assert_array_equal(result.classes, mask, row["uri"])
        assert result.note == row["note"]
        pixels = {TABLE.classes[s.id].field: s.pixels for s in result.statistics}
        assert pixels == {name: count for name, count in row["pixels"].items() if count}
        for name in ("confidence", "entropy", "margin"):
            assert getattr(result, name) == pytest.approx(row[name], abs=1e-6)


def test_probabilities__are_normalised_and_agree_with_the_mask(segmenter: Segmenter) -> None:
    results = segmenter.predict([scene(0), picture(70, 31, seed=1)], probabilities=True)
    plain = segmenter.predict([scene(0), picture(70, 31, seed=1)])
    for result, other in zip(results, plain, strict=True):
        probabilities = result.probabilities
        assert probabilities is not None
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (len(TABLE), *result.classes.shape)
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(result.classes, other.classes)
        assert result.confidence == other.confidence
        assert (probabilities.argmax(axis=0) == result.classes).mean() > 0.999


def test_probabilities__at_the_models_size_are_scores_over_their_sum() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(7, 6, generator=draw), torch.randn(7, 8, 8, generator=draw)
    scores = class_scores(logits, masks, (32, 32))
    expected = (logits.softmax(-1)[:, :5].T @ masks_at(masks).flatten(1)).unflatten(1, (32, 32))
    expected /= expected.sum(0)
    torch.testing.assert_close(resized_probabilities(scores, (32, 32)), expected)
    larger = resized_probabilities(scores, (50, 70))
    assert (argmax_classes(larger) == resized_argmax(scores, (50, 70))).float().mean() > 0.999


def masks_at(masks: torch.Tensor) -> torch.Tensor:
    full = torch.nn.functional.interpolate(masks[None], size=(32, 32), mode="bilinear")
    return full[0].sigmoid()


def test_probabilities__without_any_score_are_equal() -> None:
    values = resized_probabilities(torch.zeros(4, 8, 8), (5, 6))
    torch.testing.assert_close(values, torch.full((4, 5, 6), 0.25))


def test_pictures__colored_and_overlay(segmenter: Segmenter) -> None:
    result = segmenter.predict(scene())
    colored = result.colored()
    assert (colored.mode, colored.size) == ("P", (60, 40))
    np.testing.assert_array_equal(np.asarray(colored), result.classes)
    colors = np.array([c.color for c in TABLE.classes])[result.classes]
    np.testing.assert_array_equal(np.asarray(colored.convert("RGB")), colors)
    half = 0.5 * np.asarray(result.image) + 0.5 * colors
    np.testing.assert_allclose(np.asarray(result.overlay(0.5)), half, atol=1)
    np.testing.assert_array_equal(np.asarray(result.overlay(0)), np.asarray(result.image))
    with pytest.raises(ConfigError, match="an overlay's alpha is 0 to 1, not 2"):
        result.overlay(2)


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (3, 400), (300, 3)])
def test_pictures__plot_of_any_shape(segmenter: Segmenter, size: tuple[int, int]) -> None:
    result = segmenter.predict(picture(*size))
    plot = result.plot()
    assert (plot.mode, plot.width) == ("RGB", 2174)
    assert 300 < plot.height < 1700
    shown = {color for _, color in plot.getcolors(1 << 24)}
    assert {TABLE.classes[s.id].color for s in result.statistics} <= shown


def test_repr__png_for_notebooks_and_text(segmenter: Segmenter) -> None:
    result = segmenter.predict(scene())
    image = Image.open(io.BytesIO(result._repr_png_()))
    assert image.size == result.plot().size
    assert repr(result).startswith("Segmentation('image', 60 x 40 pixels · confidence 0.")
    assert f"{result.statistics[0].name} {result.statistics[0].share:.1%}" in repr(result)


def test_save__five_files(segmenter: Segmenter, tmp_path: Path) -> None:
    scene().save(tmp_path / "street.jpg")
    result = segmenter.predict(tmp_path / "street.jpg")
    folder = result.save(tmp_path / "new" / "out")
    assert folder == tmp_path / "new" / "out" / "street_segmentation"
    assert {p.name for p in folder.iterdir()} == {
        *("original.png", "segmentation_raw.npy", "segmentation_colored.png"),
        *("comparison.png", "class_statistics.txt"),
    }
    raw = np.load(folder / "segmentation_raw.npy")
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw, result.classes)
    mask = open_mask((folder / "segmentation_colored.png").read_bytes())
    np.testing.assert_array_equal(np.asarray(mask), result.classes)
    original = Image.open(folder / "original.png")
    assert original.tobytes() == result.image.tobytes()
    assert Image.open(folder / "comparison.png").size == result.plot().size


def test_save__an_earlier_one_is_kept_unless_replace(segmenter, tmp_path) -> None:
    first, second = segmenter.predict([scene(0), scene(1)])
    folder = first.save(tmp_path)
    with pytest.raises(OutputError) as error:
        second.save(tmp_path)
    assert str(error.value) == (
        f"{folder} is there already: save with replace=True, or into another folder"
    )
    np.testing.assert_array_equal(np.load(folder / "segmentation_raw.npy"), first.classes)
    assert second.save(tmp_path, replace=True) == folder
    np.testing.assert_array_equal(np.load(folder / "segmentation_raw.npy"), second.classes)
    assert [p.name for p in tmp_path.iterdir()] == ["image_segmentation"]


def test_save__never_removes_what_is_not_ours(segmenter: Segmenter, tmp_path: Path) -> None:
    result = segmenter.predict(scene())
    (tmp_path / "image_segmentation").mkdir()
    (tmp_path / "image_segmentation" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds more than a result \(thesis.tex\): move it away"):
        result.save(tmp_path, replace=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["image_segmentation", "thesis.tex"]


BAD_ARRAYS = {
    "float32 [4, 4, 3]": np.zeros((4, 4, 3), np.float32),
    "uint8 [3, 64, 64]": np.zeros((3, 64, 64), np.uint8),
    "uint8 [2, 4, 4, 3]": np.zeros((2, 4, 4, 3), np.uint8),
    "uint8 [7]": np.zeros(7, np.uint8),
}


@pytest.mark.parametrize("shape", BAD_ARRAYS)
def test_predict__array_of_a_wrong_kind(segmenter: Segmenter, shape: str) -> None:
    with pytest.raises(ImageError) as error:
        segmenter.predict(BAD_ARRAYS[shape])
    assert str(error.value) == (
        "the image: unsupported: an array is uint8 [H, W, 3] in RGB order (or [H, W], [H, W, 4]), "
        f"not {shape}; give a list for several images"
    )


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (b"", "empty", "the file has no bytes"),
        (b"hello", "not_an_image", "5 bytes that start with 68 65 6c 6c 6f"),
        (np.zeros((0, 4, 3), np.uint8), "empty", r"an array of \[0, 4, 3\] has no pixels"),
        (Image.new("RGB", (0, 4)), "empty", "has no pixels"),
        (Image.new("F", (4, 4)), "unsupported", r"32-bit pixels \(mode F\)"),
        (17, "unsupported", "a int is no image: give a path or URL"),
    ],
)
def test_predict__what_is_no_image(segmenter: Segmenter, image, kind: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as error:
        segmenter.predict(image)
    assert error.value.kind == kind


def test_predict__half_a_pillow_image(segmenter: Segmenter) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    with pytest.raises(ImageError, match="the Pillow image cannot be loaded: ") as error:
        segmenter.predict(Image.open(io.BytesIO(data[: len(data) // 2])))
    assert error.value.kind == "corrupt"


def test_predict__a_broken_one_in_a_list_is_named(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        segmenter.predict([scene(), scene(), scene(), b"hello"])
    assert str(error.value).startswith("image 3 of the list: not_an_image: 5 bytes")
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    with pytest.raises(ImageError) as error:
        segmenter.predict([path])
    assert str(error.value) == f"{path}: empty: the file has no bytes"


def test_predict__a_file_that_is_no_image_is_named(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "street.jpg"
    path.write_bytes(b"hello")
    with pytest.raises(ImageError) as error:
        segmenter.predict(path)
    assert str(error.value).startswith(f"{path}: not_an_image: 5 bytes that start with 68 65")
    assert error.value.kind == "not_an_image"
    with pytest.raises(ImageError, match=r"^the image: empty: the file has no bytes$"):
        segmenter.predict(b"")


def test_predict__missing_file_and_too_large(segmenter, tmp_path, checkpoint, monkeypatch) -> None:
    with pytest.raises(StorageError) as error:
        segmenter.predict(tmp_path / "none.jpg")
    assert str(error.value) == f"{tmp_path}/none.jpg cannot be read: there is no such file"
    monkeypatch.setattr(inputs, "_MAX_BYTES", 100)
    (tmp_path / "x.bmp").write_bytes(encoded(scene(), "BMP"))
    with pytest.raises(StorageError, match="more than the limit of 100") as error:
        segmenter.predict(tmp_path / "x.bmp")
    assert error.value.kind == "too_large"


def test_predict__output_that_is_no_number(tmp_path: Path) -> None:
    broken = Segmenter.random("tiny", device="cpu", image_size=64)
    with torch.no_grad():
        broken._predictor.model.query_decoder.classifier.bias.fill_(torch.nan)
    with pytest.raises(ImageError, match="the model's output is not a number") as error:
        broken.predict(scene())
    assert error.value.kind == "not_finite"


def test_random__same_seed_same_weights() -> None:
    models = [Segmenter.random(seed=s, device="cpu", image_size=64) for s in (1, 1, 2)]
    first, again, other = (m.predict(scene(), probabilities=True).probabilities for m in models)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert models[0].class_table.name == "idd"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"image_size": 100}, ConfigError, "image size 100: a positive multiple of 32 is needed"),
        ({"image_size": 0}, ConfigError, "image size 0: a positive multiple of 32 is needed"),
        ({"batch_size": 0}, ConfigError, "batch size 0: at least 1 is needed"),
        ({"device": "gpu"}, ConfigError, "device 'gpu' cannot be used here"),
        ({"dtype": "float16"}, ConfigError, "unknown dtype 'float16'"),
        ({"preset": "huge"}, ConfigError, "huge"),
        ({"classes": "none"}, ClassTableError, "none"),
    ],
)
def test_random__bad_options(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Segmenter.random(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device__cuda_without_a_gpu() -> None:
    with pytest.raises(ConfigError, match="device 'cuda' cannot be used here"):
        Segmenter.random(device="cuda")


def test_load__not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError):
        Segmenter.load(path)


def test_load__bfloat16(checkpoint: Path) -> None:
    half = Segmenter.load(checkpoint, device="cpu", dtype="bfloat16")
    parameters = half._predictor.model.parameters()
    assert {p.dtype for p in parameters} >= {torch.bfloat16}
    assert half.predict(scene()).classes.shape == (40, 60)


@pytest.mark.gpu
def test_gpu__masks_agree_with_the_cpus(checkpoint: Path) -> None:
    on_gpu = Segmenter.load(checkpoint, device="cuda", dtype="float32").predict(scene())
    on_cpu = Segmenter.load(checkpoint, device="cpu").predict(scene())
    assert (on_gpu.classes == on_cpu.classes).mean() > 0.99
