"""What goes wrong in Ray's workers reaches a person as one sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from images import MAX_BYTES, MAX_PIXELS, write_plain
from segment_runs import TABLE, embedded_ray, save_model

from dinoidd.data.manifest import FOLDER, index_images
from dinoidd.errors import ClusterError, DinoiddError, OutputError, StorageError
from dinoidd.inference.source import ModelSource
from dinoidd.output.schema import images_schema
from dinoidd.segment import cluster
from dinoidd.segment.cluster import Placement
from dinoidd.segment.layout import Layout
from dinoidd.segment.pipeline import run_chunks, user_error
from dinoidd.segment.stages import ReadImages, WriteRows
from dinoidd.segment.tally import Tally
from dinoidd.storage import DEFAULT_OPTIONS, Store


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with embedded_ray():
        yield


@pytest.fixture
def model(local_ray: None, tmp_path: Path) -> Path:
    return save_model(tmp_path / "model.safetensors")


def test_connect__stays_where_it_is(local_ray: None) -> None:
    before = ray.get_runtime_context().gcs_address
    cluster.connect()
    assert ray.get_runtime_context().gcs_address == before


def pieces(folder: Path) -> tuple[ReadImages, WriteRows]:
    layout = Layout(rows=4, rows_per_chunk=2, rows_per_file=4)
    manifest, staging = Store.open(str(folder / FOLDER)), Store.open(str(folder / "_staging"))
    read = ReadImages(
        manifest=manifest,
        manifest_sha256="",
        layout=layout,
        image_size=64,
        threads=2,
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
        storage=DEFAULT_OPTIONS,
    )
    return read, WriteRows(staging=staging, layout=layout, schema=images_schema(TABLE))


def work(folder: Path, checkpoint: Path) -> list[tuple[int, Tally]]:
    read, write = pieces(folder)
    source = ModelSource(checkpoint=str(checkpoint))
    segment = {"source": source, "image_size": 64, "batch_size": 2, "device": "cpu", "threads": 1}
    placement = Placement(device="cpu", actors=1, threads=1)
    return list(run_chunks([0, 1], read=read, segment=segment, write=write, placement=placement))


def test_run_chunks__a_lost_manifest_is_one_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DinoiddError) as caught:
        work(tmp_path, model)
    assert "\n" not in str(caught.value)
    assert f"{tmp_path}/manifest" in str(caught.value)


def test_run_chunks__a_model_that_cannot_be_loaded_is_one_sentence(
    model: Path, tmp_path: Path
) -> None:
    index_images(str(write_plain(tmp_path / "in", 4)), Store.open(str(tmp_path)))
    with pytest.raises(DinoiddError) as caught:
        work(tmp_path, tmp_path / "gone.safetensors")
    assert "\n" not in str(caught.value)
    assert "no such checkpoint file" in str(caught.value)
    assert "gone.safetensors" in str(caught.value)


def test_user_error__is_what_the_worker_raised(local_ray: None) -> None:
    @ray.remote
    def fail(error: Exception) -> None:
        raise error

    for error in (StorageError("missing", "a.png is gone"), OutputError("no space")):
        with pytest.raises(ray.exceptions.RayTaskError) as caught:
            ray.get(fail.remote(error))
        told = user_error(caught.value)
        assert isinstance(told, DinoiddError)
        assert not isinstance(told, ray.exceptions.RayError), "whose text is a traceback"
        assert str(told) == str(error)
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(fail.remote(KeyError("a bug")))
    assert user_error(caught.value) is caught.value, "a bug keeps its traceback"


def test_user_error__a_death_is_one_sentence() -> None:
    told = user_error(ray.exceptions.WorkerCrashedError())
    assert isinstance(told, ClusterError)
    assert "died unexpectedly" in str(told)
    assert "run the same command again to resume" in str(told)
    assert "\n" not in str(told)
