"""The data of a training run: which samples there are, how they are read, and in what order."""

import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import S3
from evaluation_files import save, street
from PIL import Image
from training_files import (
    SHAPE,
    SIZE,
    break_file,
    config_of,
    feed_of,
    idd_image,
    idd_label,
    idd_polygons,
    idd_set,
    photograph,
    reader_of,
)

from dinoidd.classes import BUILT_IN, IDD, ClassTable, RawValues
from dinoidd.data.image import decode_image
from dinoidd.errors import InputError, StorageError
from dinoidd.training.batch import ImageBatch
from dinoidd.training.config import AugmentationConfig
from dinoidd.training.order import Order
from dinoidd.training.reading import Example, SampleError
from dinoidd.training.samples import Sample, find_samples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return idd_set(tmp_path / "set")


@pytest.fixture
def told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """Tells the warnings so far, as people read them."""
    monkeypatch.setattr(logging.getLogger("dinoidd"), "propagate", True)
    caplog.set_level(logging.WARNING, "dinoidd")
    return lambda: caplog.messages


def first_sample(root: Path) -> Sample:
    return find_samples(config_of(root), IDD).train[0]


def equal(ours: Example, theirs: Example) -> bool:
    return np.array_equal(ours.image_SS3, theirs.image_SS3) and np.array_equal(
        ours.label_SS, theirs.label_SS
    )


# Which samples there are


def test_find_samples__both_splits_in_order(root: Path) -> None:
    samples = find_samples(config_of(root), IDD)
    assert [s.key for s in samples.train] == [f"train/0/{i:03d}" for i in range(10)]
    assert [s.key for s in samples.val] == [f"val/0/{i:03d}" for i in range(3)]
    assert samples.val[1].image == str(root / "leftImg8bit/val/0/001_leftImg8bit.png")
    label = root / "gtFine/val/0/001_gtFine_labellevel3Ids.png"
    assert (samples.val[1].label, samples.val[1].drawn) == (str(label), False)


def test_find_samples__the_first_of_a_split(root: Path) -> None:
    samples = find_samples(config_of(root, max_train_images=6, max_val_images=1), IDD)
    assert (len(samples.train), len(samples.val)) == (6, 1)


@pytest.mark.parametrize(
    ("image", "label"),
    [("images/{s}/{n}.jpg", "annotations/{s}/{n}.png"), ("{s}/{n}.png", "{s}annot/{n}.png")],
)
def test_find_samples__other_layouts(tmp_path: Path, image: str, label: str) -> None:
    for split, name in [("train", "a"), ("train", "b"), ("val", "c")]:
        save(tmp_path / image.format(s=split, n=name), photograph(1))
        save(tmp_path / label.format(s=split, n=name), np.full(SHAPE, 3, np.uint8))
    camvid = BUILT_IN["camvid"]
    samples = find_samples(config_of(tmp_path, classes="camvid", batch_size=2), camvid)
    assert [s.key for s in [*samples.train, *samples.val]] == ["train/a", "train/b", "val/c"]
    example = reader_of(camvid, "table").read(samples.val[0])
    assert (example.label_SS == 3).all()


def test_find_samples__label_images_before_polygons(root: Path) -> None:
    idd_image(root, "train", "poly", 50)
    idd_polygons(root, "train", "poly")
    idd_polygons(root, "train", "001")
    drawn = {s.key: s.drawn for s in find_samples(config_of(root), IDD).train}
    assert [key for key in drawn if drawn[key]] == ["train/0/poly"]


def test_find_samples__frames_without_label_are_counted_and_told(
    root: Path, told: Callable[[], list[str]]
) -> None:
    for name in ("x", "y"):
        idd_image(root, "train", name, 1)
    assert len(find_samples(config_of(root), IDD).train) == 10
    assert told() == [
        f"2 of 12 images in the split 'train' of {root} have no label, such as train/0/x: they are "
        "left out"
    ]


def refusal(root: Path, table: ClassTable = IDD, **settings: object) -> str:
    with pytest.raises(InputError) as error:
        find_samples(config_of(root, **settings), table)
    return str(error.value)


def test_find_samples__no_label_at_all(root: Path) -> None:
    for name in ("x", "y"):
        idd_image(root, "test", name, 1)
    assert refusal(root, val_split="test") == (
        f"none of the 2 images in the split 'test' of {root} has a label, such as test/0/x: in gtFine/ "
        "label images of class table 'idd' end in _gtFine_labellevel3Ids.png"
    )


def test_find_samples__polygons_for_another_class_table(root: Path) -> None:
    idd_image(root, "poly", "a", 1)
    idd_polygons(root, "poly", "a")
    splits = {"train_split": "poly", "val_split": "poly", "batch_size": 1}
    train_ids = BUILT_IN["cityscapes_train_ids"]
    sample = find_samples(config_of(root, **splits), train_ids).train[0]
    label = reader_of(train_ids, "table").read(sample).label_SS
    assert set(label.ravel().tolist()) == {0, 10, 13}
    mine = replace(IDD, name="mine")
    assert refusal(root, mine, train_split="poly").endswith(
        "there are IDD polygons, which are drawn for the class tables idd, idd_level2, idd_level1, "
        "cityscapes_train_ids, not for 'mine'"
    )
    own = replace(IDD, classes=IDD.classes[:5], hierarchy=())  # called idd, and something else
    assert refusal(root, own, train_split="poly").endswith("cityscapes_train_ids, not for 'idd'")


def test_find_samples__empty_split(root: Path) -> None:
    assert refusal(root, val_split="valid") == (
        f"{root} has no images in the split 'valid': set val_split to one of those there are: "
        "train (10), val (3)"
    )


def test_find_samples__fewer_than_a_step(root: Path) -> None:
    assert refusal(root, batch_size=16) == (
        f"the split 'train' of {root} has 10 labelled images, and one step takes batch_size=16: set "
        "batch_size to 10 or less"
    )


# Reading one


def test_read__as_inference_resizes_and_labels_nearest(root: Path) -> None:
    sample = first_sample(root)
    example = reader_of().read(sample, view=5)
    decoded = decode_image(Path(sample.image).read_bytes(), max_pixels=10_000)
    assert np.array_equal(example.image_SS3, decoded.resized((SIZE, SIZE)))
    label = Image.open(sample.label).resize((SIZE, SIZE), Image.Resampling.NEAREST)
    assert np.array_equal(example.label_SS, np.asarray(label))
    assert (example.key, example.view) == ("train/0/000", 5)
    assert example.image_SS3.dtype == example.label_SS.dtype == np.uint8


def test_read__polygons_equal_their_label_image(root: Path) -> None:
    idd_image(root, "train", "poly", 50)
    idd_polygons(root, "train", "poly")
    reader = reader_of(encoding="road255")  # of label images; polygons are always official
    sample = find_samples(config_of(root), IDD).train[-1]
    assert sample.drawn
    from_polygons = reader.read(sample)
    ids = np.zeros(SHAPE, np.uint8)
    ids[:18], ids[18:] = 25, 0
    ids[19:31, 9:31] = 9
    label = idd_label(root, "train", "poly", ids)
    assert equal(reader_of().read(replace(sample, label=str(label), drawn=False)), from_polygons)


def test_read__road255(root: Path) -> None:
    sample = first_sample(root)
    raw = street(0, SHAPE)
    Image.fromarray(np.where(raw == 0, 255, np.where(raw == 255, 1, raw))).save(sample.label)
    label = reader_of(encoding="road255").read(sample).label_SS
    assert 255 not in label
    assert 0 in label


def test_read__void_is_255_whatever_the_table_ignores(tmp_path: Path) -> None:
    raw = RawValues(values={7: 0, 9: 30}, ignore_index=30)
    table = ClassTable(name="mine", classes=IDD.classes[:2], ignore_index=30, raw=raw)
    image = save(tmp_path / "a.png", photograph(0))
    label = save(tmp_path / "l.png", np.repeat(np.uint8([[7], [9]]), 4, 1))
    sample = Sample(key="a", image=str(image), label=str(label))
    save(image, photograph(0, (2, 4)))
    found = reader_of(table, "table").read(sample).label_SS
    assert set(found.ravel().tolist()) == {0, 255}


def test_read__is_writable_and_the_reader_picklable(root: Path) -> None:
    sample, reader = first_sample(root), pickle.loads(pickle.dumps(reader_of()))
    example = reader.read(sample)
    assert equal(example, reader_of().read(sample))
    example.image_SS3[0, 0] = example.label_SS[0, 0] = 1


def problem(sample: Sample) -> str:
    with pytest.raises(SampleError) as error:
        reader_of().read(sample)
    return str(error.value)


def test_read__sizes_differ(root: Path) -> None:
    sample = first_sample(root)
    save(Path(sample.label), street(0, (36, 60)))
    assert problem(sample) == (
        f"label {sample.label} is 60x36, and its image {sample.image} is 64x36: draw or export one "
        "of them anew"
    )


def test_read__unknown_raw_values(root: Path) -> None:
    sample = first_sample(root)
    save(Path(sample.label), np.full(SHAPE, 77, np.uint8))
    assert problem(sample) == (
        f"label {sample.label}: raw values that the class table does not name: 77 (1024 pixels); "
        "name them in the table, or set its 'unmapped' to 'ignore'"
    )


def test_read__broken_files(root: Path) -> None:
    sample = first_sample(root)
    Path(sample.label).write_bytes(b"")
    assert problem(sample) == f"label {sample.label}: the file is empty"
    break_file(Path(sample.image))
    assert problem(sample).startswith(f"image {sample.image}: 80 bytes: ")
    Path(sample.image).unlink()
    assert problem(sample) == f"{sample.image} cannot be read: there is no such file"


def test_read__a_store_that_fails_is_no_broken_sample(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> bytes:
        raise StorageError("unreachable", "the store does not answer")

    monkeypatch.setattr("dinoidd.storage.ObjectReader.read", unreachable)
    with pytest.raises(StorageError, match="the store does not answer"):
        reader_of().read(first_sample(root))


# The order


def order(workers: int = 1, forward_batch: int = 2, images: int = 30) -> Order:
    return Order(images=images, batch_size=8, workers=workers, forward_batch=forward_batch, seed=3)


@pytest.mark.parametrize(("workers", "forward_batch"), [(1, 8), (1, 1), (2, 4), (2, 2), (4, 1)])
def test_order__steps_are_the_same_for_any_workers(workers: int, forward_batch: int) -> None:
    plan = order(workers, forward_batch)
    per_step = 8 // workers // forward_batch
    shares = [list(plan.micro_batches(rank)) for rank in range(workers)]
    assert all(len(share) == 3 * per_step for share in shares)
    for step in range(3):
        parts = [share[step * per_step : (step + 1) * per_step] for share in shares]
        positions = [p for part in parts for micro_batch in part for p in micro_batch]
        assert positions == list(range(8 * step, 8 * step + 8))


def test_order__each_epoch_has_its_permutation() -> None:
    first, second = order().permutation(1), order().permutation(2)
    assert sorted(first) == sorted(second) == list(range(30))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, order(workers=4).permutation(1))
    assert not np.array_equal(first, replace(order(), seed=4).permutation(1))
    assert set(first[24:]) != set(second[24:])  # the remainder, which is left out
    assert order().steps_per_epoch == 3


def test_order__fewer_images_than_a_step() -> None:
    with pytest.raises(InputError, match=r"^the training split has 7 images, and one step takes "):
        order(images=7)


# The feed


def rows(batches: list[ImageBatch]) -> list[tuple[str, int, bytes, bytes]]:
    return [
        (key, view, image.tobytes(), label.tobytes())
        for b in batches
        for key, view, image, label in zip(
            b.keys, b.views, b.images_BSS3, b.labels_BSS, strict=True
        )
    ]


AUGMENTED = AugmentationConfig(flip=True, scale=(0.5, 2.0), photometric=1.0)


@pytest.mark.parametrize("threads", [1, 3])
def test_feed__two_workers_see_what_one_sees(root: Path, threads: int) -> None:
    settings = {"augmentation": AUGMENTED, "cached": False}
    alone = list(feed_of(config_of(root, **settings)).train(4, 2))
    assert [len(b.keys) for b in alone] == [4, 4, 4, 4]
    assert [set(b.views) for b in alone] == [{4}, {4}, {5}, {5}]
    two = config_of(root, workers=2, micro_batch=1, threads=threads, **settings)
    halves = [list(feed_of(two, rank).train(4, 2)) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        together = [rows(half[2 * step : 2 * step + 2]) for half in halves]
        assert together[0] + together[1] == rows([batch])


def test_feed__resumes_in_the_same_order(root: Path) -> None:
    whole = rows(list(feed_of(config_of(root)).train(1, 3)))
    resumed = rows(list(feed_of(config_of(root)).train(2, 2)))
    assert whole[8:] == resumed


def test_feed__validation_is_shared_out_once_each(root: Path) -> None:
    config = config_of(root, workers=2)
    shares = [list(feed_of(config, rank).validation()) for rank in (0, 1)]
    assert [[b.keys for b in share] for share in shares] == [
        [["val/0/000", "val/0/002"]],
        [["val/0/001"]],
    ]
    assert list(feed_of(config_of(root, workers=4, max_val_images=2), 3).validation()) == []


def test_feed__a_broken_file_is_replaced_by_the_epochs_next(
    root: Path, told: Callable[[], list[str]]
) -> None:
    before = rows(list(feed_of(config_of(root)).train(1, 1)))
    at = 2
    broken = before[at][0]
    name = broken.rpartition("/")[2]
    break_file(root / "leftImg8bit/train/0" / f"{name}_leftImg8bit.png")
    feed = feed_of(config_of(root))
    after = rows(list(feed.train(1, 1)))
    assert after[:at] + after[at + 1 :] == before[:at] + before[at + 1 :]
    assert after[at] == before[at + 1]
    assert list(feed.skipped) == [broken]
    list(feed.train(2, 3))
    assert told() == [f"left out {broken}: {feed.skipped[broken].reason}"]  # once
    two = config_of(root, workers=2)
    halves = [rows(list(feed_of(two, rank).train(1, 1))) for rank in (0, 1)]
    assert halves[0][:2] + halves[1][:2] + halves[0][2:] + halves[1][2:] == after


def test_feed__everything_broken(root: Path) -> None:
    for path in root.glob("leftImg8bit/*/0/*.png"):
        path.write_bytes(b"no image")
    feed = feed_of(config_of(root))
    with pytest.raises(InputError, match=r"^10 training images in a row cannot be used, the last "):
        list(feed.train(1, 1))
    with pytest.raises(
        InputError, match=r"^not one of a worker's 3 validation images can be used, such as val/0/0"
    ):
        list(feed.validation())


def test_feed__a_broken_validation_file_is_left_out(
    root: Path, told: Callable[[], list[str]]
) -> None:
    break_file(root / "gtFine/val/0/001_gtFine_labellevel3Ids.png")
    feed = feed_of(config_of(root))
    assert [b.keys for b in feed.validation()] == [["val/0/000", "val/0/002"]]
    assert list(feed.skipped) == ["val/0/001"]
    assert len(told()) == 1


def test_feed__stops_early_without_reading_on(root: Path) -> None:
    feed = feed_of(config_of(root))
    stream = feed.train(1, 1000)
    assert len(next(stream).keys) == 4
    stream.close()


def test_feed__from_a_bucket(root: Path, s3: S3) -> None:
    client, bucket = s3.client(), s3.new_bucket()
    for path in root.rglob("*.png"):
        client.upload_file(str(path), bucket, f"sets/idd/{path.relative_to(root)}")
    config = config_of(f"s3://{bucket}/sets/idd", endpoint_url=s3.endpoint_url)
    here, there = feed_of(config_of(root)), feed_of(config)
    assert rows(list(there.train(1, 1))) == rows(list(here.train(1, 1)))
    assert rows(list(there.validation())) == rows(list(here.validation()))
