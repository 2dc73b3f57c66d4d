"""The three stages without Ray: one row an image, whatever the image is."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from images import BROKEN, GONE, GOOD, MAX_BYTES, MAX_PIXELS, SAMPLES, write_plain, write_samples
from PIL import Image
from segment_runs import TABLE, Row, check_mask, save_model
from small_models import drawn_model

from dinoidd.checkpoint.file import load_checkpoint, save_checkpoint
from dinoidd.data.image import decode_image
from dinoidd.data.manifest import FOLDER, index_images
from dinoidd.errors import CheckpointError, ClusterError, ImageError, OutputError
from dinoidd.inference import device_errors
from dinoidd.inference.predictor import Predictor
from dinoidd.inference.source import ModelSource
from dinoidd.output.schema import images_schema
from dinoidd.segment import stages
from dinoidd.segment.chunk_file import read_footer
from dinoidd.segment.layout import Layout
from dinoidd.segment.packed_classes import pack_classes, unpack_classes
from dinoidd.segment.stages import ReadImages, SegmentImages, WriteRows
from dinoidd.segment.tally import Tally
from dinoidd.storage import DEFAULT_OPTIONS, Store

SIZE = 64
NAMES = list(SAMPLES)


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    """SegmentImages sets torch's threads for its process, which here is that of all tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def segmenter(model_file: Path) -> SegmentImages:
    return SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 4, "cpu", 1)


def reader(images: Path, folder: Path, rows_per_chunk: int = 1000) -> ReadImages:
    """Index `images` into `folder`, and read them in chunks."""
    output = Store.open(str(folder))
    rows = index_images(str(images), output).rows
    return ReadImages(
        manifest=output.child(FOLDER),
        manifest_sha256="",
        layout=Layout(rows=rows, rows_per_chunk=rows_per_chunk, rows_per_file=rows_per_chunk),
        image_size=SIZE,
        threads=4,
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
        storage=DEFAULT_OPTIONS,
    )


def writer(read: ReadImages, folder: Path) -> WriteRows:
    schema = images_schema(TABLE, run_id="run-1", fingerprint="f" * 64)
    return WriteRows(staging=Store.open(str(folder)), layout=read.layout, schema=schema)


@pytest.fixture(scope="module")
def written(segmenter: SegmentImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sample through all three stages: the file of their chunk."""
    folder = tmp_path_factory.mktemp("stages")
    read = reader(write_samples(folder / "in"), folder)
    write = writer(read, folder / "staging")
    write(segmenter(read(0)))
    return folder / "staging" / read.layout.chunk_name(0)


@pytest.fixture(scope="module")
def rows(written: Path) -> dict[str, Row]:
    listed = pq.read_table(written).to_pylist()
    assert [row["image_id"] for row in listed] == list(range(len(NAMES)))
    assert [Path(row["uri"]).name for row in listed] == NAMES
    return dict(zip(NAMES, listed, strict=True))


@pytest.mark.parametrize("name", GOOD)
def test_stages__a_good_image(name: str, rows: dict[str, Row], model_file: Path) -> None:
    row, sample = rows[name], GOOD[name]
    assert (row["status"], row["error_kind"], row["error"]) == ("ok", None, None)
    assert (row["height"], row["width"]) == sample.size
    assert row["note"] == sample.note
    mask = check_mask(row, TABLE.fields)
    square = decode_image(sample.make(), max_pixels=MAX_PIXELS).resized((SIZE, SIZE))
    predictor = Predictor(load_checkpoint(model_file)[0])
    (expected,) = predictor.predict(square[None], [(row["height"], row["width"])])
    assert np.mean(mask == expected.classes) > 0.995  # a batch may round other than one image
    assert row["confidence"] == pytest.approx(expected.certainty.confidence, abs=1e-4)
    assert row["entropy"] == pytest.approx(expected.certainty.entropy, abs=1e-4)
    assert row["margin"] == pytest.approx(expected.certainty.margin, abs=1e-4)


@pytest.mark.parametrize("name", [*BROKEN, GONE])
def test_stages__a_broken_image(name: str, rows: dict[str, Row]) -> None:
    row, sample = rows[name], SAMPLES[name]
    assert (row["status"], row["error_kind"]) == ("error", sample.kind)
    assert sample.words in row["error"]
    assert "\n" not in row["error"]
    for column in ("height", "width", "pixels", "fraction", "confidence", "entropy", "margin"):
        assert row[column] is None, column
    assert row["mask"] is None
    assert row["note"] is None


def test_stages__masks_have_several_classes(rows: dict[str, Row]) -> None:
    """Or the tests above would compare constants."""
    seen = [sum(count > 0 for count in rows[name]["pixels"].values()) for name in GOOD]
    assert sum(classes >= 2 for classes in seen) > len(GOOD) / 2


def test_stages__the_schema_is_the_contract(written: Path) -> None:
    fields = ["road", "traffic_light", "sky", "obs_str_bar_fallback", "car"]
    expected = {
        "image_id": pa.int64(),
        "uri": pa.string(),
        "status": pa.dictionary(pa.int32(), pa.string()),
        "error_kind": pa.string(),
        "error": pa.string(),
        "note": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "mask": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "pixels": pa.struct([(f, pa.int64()) for f in fields]),
        "fraction": pa.struct([(f, pa.float32()) for f in fields]),
        "confidence": pa.float32(),
        "entropy": pa.float32(),
        "margin": pa.float32(),
    }
    schema = pq.read_schema(written)
    assert {f.name: f.type for f in schema} == expected
    assert [f.name for f in schema if not f.nullable] == ["image_id", "uri", "status"]
    assert schema.metadata[b"dinoidd.run_id"] == b"run-1"
    assert schema.metadata[b"dinoidd.model_fingerprint"] == b"f" * 64
    assert b'"mask": {"_type": "Image"}' in schema.metadata[b"huggingface"]


def test_stages__the_tally_agrees_with_the_rows(written: Path, rows: dict[str, Row]) -> None:
    tally = read_footer(Store.open(str(written.parent)), written.name)[1]
    assert (tally.images, tally.ok) == (len(SAMPLES), len(GOOD))
    assert tally.errors == {
        kind: sum(s.kind == kind for s in SAMPLES.values())
        for kind in {s.kind for s in SAMPLES.values() if s.kind}
    }
    for field in TABLE.fields:
        counts = [rows[name]["pixels"][field] for name in GOOD]
        assert tally.pixels[field] == sum(counts)
        assert tally.images_with[field] == sum(count > 0 for count in counts)
    unread = ("empty.jpg", "heavy.bmp", GONE)
    assert tally.bytes_read == sum(
        len(s.make()) for name, s in SAMPLES.items() if name not in unread
    )
    assert all(seconds > 0 for seconds in tally.seconds.values())


def test_read_images__sends_small_integers_only(tmp_path: Path) -> None:
    table = reader(write_samples(tmp_path / "in"), tmp_path)(0)
    assert table.schema.field("image").type == pa.large_binary()
    for name, image in zip(NAMES, table["image"].to_pylist(), strict=True):
        assert (image is None) if name not in GOOD else len(image) == SIZE * SIZE * 3


def test_read_images__each_chunk_its_own_rows(tmp_path: Path) -> None:
    read = reader(write_plain(tmp_path / "in", 10), tmp_path, rows_per_chunk=4)
    ids = [read(chunk)["image_id"].to_pylist() for chunk in range(read.layout.chunks)]
    assert ids == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_read_images__a_decoder_that_fails_unforeseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(data: bytes, *, max_pixels: int) -> None:
        raise OverflowError("too large for a C ssize_t")

    read = reader(write_plain(tmp_path / "in", 2), tmp_path)
    monkeypatch.setattr(stages, "decode_image", overflow)
    table = read(0)
    assert table["error_kind"].to_pylist() == ["crashed"] * 2
    assert "OverflowError" in table["error"][0].as_py()


def test_read_images__a_lost_manifest_is_no_image_error(tmp_path: Path) -> None:
    """It concerns the run, so it must not become rows."""
    read = reader(write_plain(tmp_path / "in", 2), tmp_path)
    beyond = replace(read, layout=replace(read.layout, rows=5))
    with pytest.raises(OutputError, match="has no rows 0 to 5"):
        beyond(0)


def test_segment_images__the_batch_size_changes_nothing(
    segmenter: SegmentImages, model_file: Path, tmp_path: Path
) -> None:
    chunk = reader(write_plain(tmp_path / "in", 9), tmp_path)(0)
    single = SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 1, "cpu", 1)
    together, alone = segmenter(chunk), single(chunk)
    for one, other in zip(together.to_pylist(), alone.to_pylist(), strict=True):
        size = one["height"], one["width"]
        a, b = (unpack_classes(row["classes"], size) for row in (one, other))
        assert np.mean(a == b) > 0.995
    assert np.allclose(together["confidence"], alone["confidence"], atol=1e-4)


class Meter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.batches: list[int] = []

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def forwarded(self, images: int) -> None:
        self.batches.append(images)

    def took_memory(self, gpu_bytes: int) -> None:
        raise AssertionError("there is no GPU")


def test_segment_images__tells_its_waits_and_batches(model_file: Path, tmp_path: Path) -> None:
    chunk = reader(write_plain(tmp_path / "in", 9), tmp_path)(0)
    meter = Meter()
    source = ModelSource(checkpoint=str(model_file))
    segment = SegmentImages(source, SIZE, 4, "cpu", 1, metering=meter)
    segment(chunk)
    time.sleep(0.05)
    segment(chunk)
    assert meter.batches == [4, 4, 1, 4, 4, 1], "the blank image of the start is none"
    assert meter.waits[0] < 0.05 <= meter.waits[1] < 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (300, 500)])
def test_pack_classes__and_back(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    for classes in (noise, np.asfortranarray(noise), np.full(size, 7, np.uint8)):
        assert np.array_equal(unpack_classes(pack_classes(classes), size), classes)


def test_segment_images__classes_of_large_images_travel_small(
    segmenter: SegmentImages, tmp_path: Path
) -> None:
    """Raw they were a byte a pixel, and a piece of large images did not fit any memory."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        Image.new("RGB", (3000, 2000), (i, 90, 200)).save(tmp_path / "in" / f"{i}.png")
    segmented = segmenter(replace(reader(tmp_path / "in", tmp_path), max_pixels=10**7)(0))
    assert segmented["error_kind"].null_count == 4
    assert segmented.nbytes < 4 * 3000 * 2000 / 20


def test_read_images__large_files_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most = 0, 0

    def slow(self: ReadImages, data: bytes) -> dict[str, object]:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.02)
        busy -= 1
        return {"height": 1, "width": 1}

    read = reader(write_plain(tmp_path / "in", 6), tmp_path)
    monkeypatch.setattr(ReadImages, "_decode", slow)
    read(0)
    assert most > 1
    most = 0
    monkeypatch.setattr(stages, "_LARGE_FILE", 10)
    read(0)
    assert most == 1


def test_stages__a_chunk_of_errors_alone(segmenter: SegmentImages, tmp_path: Path) -> None:
    read = reader(write_samples(tmp_path / "in", BROKEN), tmp_path)
    write = writer(read, tmp_path / "staging")
    tally = write(segmenter(read(0)))
    assert (tally.images, tally.ok) == (len(BROKEN), 0)
    assert tally.bytes_written == (tmp_path / "staging" / read.layout.chunk_name(0)).stat().st_size
    table = pq.read_table(tmp_path / "staging" / read.layout.chunk_name(0))
    assert table["status"].to_pylist() == ["error"] * len(BROKEN)
    assert table.schema.equals(write.schema)


def test_stages__a_model_that_is_not_finite(tmp_path: Path) -> None:
    model = drawn_model()
    model.query_decoder.classifier.weight.data.fill_(float("nan"))
    save_checkpoint(model, TABLE, tmp_path / "nan.safetensors")
    source = ModelSource(checkpoint=str(tmp_path / "nan.safetensors"))
    read = reader(write_plain(tmp_path / "in", 3), tmp_path)
    segmented = SegmentImages(source, SIZE, 2, "cpu", 1)(read(0))
    tally = writer(read, tmp_path / "staging")(segmented)
    assert tally.errors == {"not_finite": 3}
    table = pq.read_table(tmp_path / "staging" / read.layout.chunk_name(0))
    assert table["mask"].null_count == table["confidence"].null_count == 3
    assert "--dtype float32" in table["error"][0].as_py()
    assert table["height"].to_pylist() == [32, 32, 32]  # that much is known


def test_write_rows__other_rows_are_refused(segmenter: SegmentImages, tmp_path: Path) -> None:
    read = reader(write_plain(tmp_path / "in", 6), tmp_path, rows_per_chunk=3)
    write = writer(read, tmp_path / "staging")
    segmented = segmenter(read(0))
    for wrong in (segmented.slice(0, 2), segmented.slice(1), segmented.take([0, 2, 1])):
        with pytest.raises(AssertionError, match="came with rows"):
            write(wrong)
    assert write.staging.names() == []


def test_write_rows__again_replaces_by_the_same(segmenter: SegmentImages, tmp_path: Path) -> None:
    read = reader(write_samples(tmp_path / "in"), tmp_path)
    write = writer(read, tmp_path / "staging")
    tables = []
    for _ in range(2):
        tally = write(segmenter(read(0)))
        assert isinstance(tally, Tally)
        tables.append(pq.read_table(tmp_path / "staging" / read.layout.chunk_name(0)))
    assert tables[0].equals(tables[1])
    assert write.staging.names() == [read.layout.chunk_name(0)]


def test_image_error__survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(ImageError("truncated", "it ends early")))
    assert (error.kind, str(error)) == ("truncated", "it ends early")


def test_segment_images__out_of_memory_halves_the_batch(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third image never fits; the others do, two at a time."""
    read = reader(write_plain(tmp_path / "in", 6), tmp_path)
    segment = SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 4, "cpu", 1)
    chunk = read(0)
    poison = chunk["image"][2].as_py()
    predict = segment._predictor.predict

    def short_of_memory(images_BHW3: np.ndarray, sizes: list[tuple[int, int]]) -> object:
        if len(images_BHW3) > 2 or any(image.tobytes() == poison for image in images_BHW3):
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ..."
            )
        return predict(images_BHW3, sizes)

    monkeypatch.setattr(segment._predictor, "predict", short_of_memory)
    table = segment(chunk)

    kinds = table["error_kind"].to_pylist()
    assert kinds == [None, None, "out_of_memory", None, None, None]
    assert table["error"][2].as_py() == "alone in its batch: CUDA out of memory"
    assert table["classes"].null_count == 1


def test_segment_images__memory_that_is_short_makes_later_batches_smaller(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader(write_plain(tmp_path / "in", 6), tmp_path)
    segment = SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 4, "cpu", 1)
    predict, batches = segment._predictor.predict, []

    def two_fit(images_BHW3: np.ndarray, sizes: list[tuple[int, int]]) -> object:
        batches.append(len(images_BHW3))
        if len(images_BHW3) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(images_BHW3, sizes)

    monkeypatch.setattr(segment._predictor, "predict", two_fit)
    for _ in range(2):
        assert segment(read(0))["error_kind"].null_count == 6
    assert batches == [4, 2, 2, 2, 2, 2, 2]


def test_segment_images__an_image_that_makes_the_model_raise(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader(write_plain(tmp_path / "in", 7), tmp_path)
    segment = SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 4, "cpu", 1)
    chunk = read(0)
    poison = {chunk["image"][i].as_py() for i in (0, 5)}
    predict, sizes_of_batches = segment._predictor.predict, []

    def raising(images_BHW3: np.ndarray, sizes: list[tuple[int, int]]) -> object:
        sizes_of_batches.append(len(sizes))
        if any(image.tobytes() in poison for image in images_BHW3):
            raise ValueError("an odd shape\nand more of it")
        return predict(images_BHW3, sizes)

    monkeypatch.setattr(segment._predictor, "predict", raising)
    table = segment(chunk)

    kinds = table["error_kind"].to_pylist()
    assert kinds == ["crashed", None, None, None, None, "crashed", None]
    told = "alone in its batch, the model raised ValueError: an odd shape"
    assert table["error"][0].as_py() == table["error"][5].as_py() == told
    assert sizes_of_batches == [4, 2, 1, 1, 2, 3, 1, 2, 1, 1]


def test_segment_images__a_lost_device_is_no_image_error(
    segmenter: SegmentImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is tried after it fails too. In a worker of Ray the process ends and is started anew."""
    chunk = reader(write_plain(tmp_path / "in", 2), tmp_path)(0)

    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(segmenter._predictor, "predict", lost)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        segmenter(chunk)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_segment_images__memory_that_libraries_lack_halves_the_batch(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Some look like a lost device, which would cost the process and end at the same batch again."""
    chunk = reader(write_plain(tmp_path / "in", 6), tmp_path)(0)
    segment = SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 4, "cpu", 1)
    predict, batches = segment._predictor.predict, []

    def two_fit(images_BHW3: np.ndarray, sizes: list[tuple[int, int]]) -> object:
        batches.append(len(images_BHW3))
        if len(images_BHW3) > 2:
            raise error
        return predict(images_BHW3, sizes)

    monkeypatch.setattr(segment._predictor, "predict", two_fit)
    for _ in range(2):
        assert segment(chunk)["error_kind"].null_count == 6
    assert batches == [4, 2, 2, 2, 2, 2, 2]


def test_segment_images__short_of_memory_on_a_lost_device(
    segmenter: SegmentImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or every image after it would become an error row."""
    chunk = reader(write_plain(tmp_path / "in", 2), tmp_path)(0)

    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")

    monkeypatch.setattr(segmenter._predictor, "predict", lost)
    monkeypatch.setattr(device_errors, "_works", lambda device: False)
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_ALLOC_FAILED"):
        segmenter(chunk)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no kernel image\nfor this device"), "RuntimeError: no kernel image"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "OutOfMemoryError: CUDA out of memory. Tried",
        ),
        (KeyError(), "KeyError: without a word"),
    ],
)
def test_segment_images__a_model_that_works_with_no_image_at_all(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Predictor, "predict", fail)
    with pytest.raises(ClusterError) as caught:
        SegmentImages(ModelSource(checkpoint=str(model_file)), SIZE, 4, "cpu", 1)
    said = "the model cannot segment a blank image of 64 x 64 pixels on cpu: "
    assert str(caught.value) == said + told


def test_model_source__weights_that_changed_are_refused(model_file: Path) -> None:
    source = ModelSource(checkpoint=str(model_file))
    exact = source.exactly(source.describe())
    assert exact.load() is not None
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        replace(exact, weights="0" * 64).load()
