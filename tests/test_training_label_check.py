"""Labels are looked at before a run: a wrong encoding or class table does not pass silently."""

import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import S3
from evaluation_files import save, street
from PIL import Image
from training_files import SHAPE, break_file, config_of, idd_image, idd_polygons, idd_set, road255

from dinoidd.classes import BUILT_IN, IDD, ClassTable
from dinoidd.errors import ConfigError, DinoiddError, InputError
from dinoidd.training.label_check import MOST, LabelCheck, _spread, check_labels
from dinoidd.training.samples import Sample, Samples, find_samples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return idd_set(tmp_path / "set")


def relabel(root: Path, ids_of, split: str = "*") -> None:
    """Change the label images of a split, or of all."""
    for path in root.glob(f"gtFine/{split}/0/*.png"):
        save(path, ids_of(np.asarray(Image.open(path))))


def check(root: Path, table: ClassTable = IDD, **settings: object) -> LabelCheck:
    config = config_of(root, **settings)
    return check_labels(config, table, find_samples(config, table))


def refusal(kind: type[DinoiddError], root: Path, table: ClassTable = IDD, **more: object) -> str:
    with pytest.raises(kind) as error:
        check(root, table, **more)
    return str(error.value)


def test_check__auto_finds_the_encoding(root: Path) -> None:
    found = check(root)
    assert found.encoding == "official"
    assert found.sentence.startswith(
        "encoding official: train: 0 (road) occurs in 10 of 10 label images, as it does in the "
        "official encoding alone; val: "
    )
    relabel(root, road255)
    assert check(root).encoding == "road255"
    assert check(root, encoding="road255").encoding == "road255"


def test_check__an_encoding_that_contradicts_the_labels(root: Path) -> None:
    assert refusal(ConfigError, root, encoding="road255") == (
        "encoding=road255 contradicts the label images: 0 (road) occurs in 10 of 10 label images, as "
        "it does in the official encoding alone; set encoding=official"
    )
    relabel(root, road255)
    assert refusal(ConfigError, root, encoding="official") == (
        "encoding=official contradicts the label images: 0 occurs in none of 10 label images, and 255 "
        "covers much of 10: 255 is road here (encoding `road255`); set encoding=road255"
    )


def test_check__splits_in_different_encodings(root: Path) -> None:
    relabel(root, road255, "val")
    message = refusal(ConfigError, root)
    assert message.startswith("encoding=auto cannot tell how road is encoded: train: 0 (road) ")
    assert message.endswith("set encoding=official (road is 0) or encoding=road255")
    assert "set encoding=road255" in refusal(ConfigError, root, encoding="official")


def test_check__mixed_encodings_in_a_split(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        path = root / f"gtFine/train/0/{i:03d}_gtFine_labellevel3Ids.png"
        save(path, road255(np.asarray(Image.open(path))))
    assert "some of them may be in `road255`" in refusal(ConfigError, root)
    monkeypatch.setattr(logging.getLogger("dinoidd"), "propagate", True)
    assert check(root, encoding="official").encoding == "official"
    assert "some of them may be in `road255`" in caplog.text


def test_check__nothing_to_tell_the_encodings_apart(root: Path) -> None:
    relabel(root, lambda ids: np.full_like(ids, 25))
    assert "too little to tell" in refusal(ConfigError, root)
    assert check(root, encoding="official").encoding == "official"


def test_check__ids_of_another_kind(root: Path) -> None:
    relabel(root, lambda ids: np.where(ids == 25, 33, np.minimum(ids, 34)).astype(np.uint8))
    files = sorted(map(str, root.glob("gtFine/train/0/*.png")))[:3]
    assert refusal(InputError, root) == (
        "the labels of 'train' cannot be used: raw values 33, 34 occur: the encoding `id`; use the "
        f"level3Id label images; they occur in 10 of 10 label images ({'; '.join(files)}; ...)"
    )


@pytest.mark.parametrize("table", [IDD, BUILT_IN["camvid"]])
def test_check__a_single_bad_label_is_named(root: Path, table: ClassTable) -> None:
    relabel(root, lambda ids: np.minimum(ids, 10))
    bad = root / "gtFine/val/0/001_gtFine_labellevel3Ids.png"
    ids = np.array(Image.open(bad))
    ids[0, :2] = 77
    save(bad, ids)
    expected = {
        "idd": "the labels of 'val' cannot be used: raw values 77 occur: neither of IDD's level 3 "
        f"encodings; use the level3Id label images; they occur in 1 of 3 label images ({bad})",
        "camvid": f"in 'val' 1 of 3 label images ({bad}) hold raw values that the class table "
        "'camvid' does not name: 77 (2 pixels); use the right --classes, name them in the table, or "
        "set its 'unmapped' to 'ignore'",
    }
    assert refusal(InputError, root, table) == expected[table.name]


def test_check__values_that_a_table_does_not_name(root: Path) -> None:
    message = refusal(InputError, root, BUILT_IN["camvid"], classes="camvid")
    assert message.startswith(f"in 'train' 10 of 10 label images ({root}/gtFine/train/0/000_")
    assert "; ...) hold raw values that the class table 'camvid' does not name: 25 (" in message
    assert message.endswith(
        "pixels); use the right --classes, name them in the table, or set its "
        "'unmapped' to 'ignore'"
    )
    relabel(root, lambda ids: np.minimum(ids, 11))
    assert check(root, BUILT_IN["camvid"], classes="camvid").encoding == "table"


def test_check__colors_that_a_table_does_not_name(root: Path) -> None:
    relabel(root, lambda ids: np.full((*SHAPE, 3), (1, 2, 3), np.uint8))
    message = refusal(InputError, root, BUILT_IN["camvid"], classes="camvid")
    assert "does not name: [1, 2, 3] (23,040 pixels); use" in message


def test_check__an_encoding_for_another_table(root: Path) -> None:
    assert refusal(ConfigError, root, BUILT_IN["camvid"], encoding="road255") == (
        "encoding=road255 is one of IDD's label images: the class table 'camvid' tells how its own "
        "are read; leave encoding out"
    )


def test_check__void_throughout(root: Path) -> None:
    relabel(root, lambda ids: np.full_like(ids, 11))
    assert refusal(InputError, root, BUILT_IN["camvid"]) == (
        "all 10 labels of 'train' that were looked at are void throughout: there is nothing to learn; "
        "check --classes and encoding"
    )


def test_check__sizes_differ(root: Path) -> None:
    save(root / "gtFine/val/0/002_gtFine_labellevel3Ids.png", street(1, (36, 60)))
    assert refusal(InputError, root) == (
        "in 'val' 1 of 3 images (val/0/002: image 64x36, label 60x36) have labels of another size than "
        "their image: draw or export them anew"
    )


def test_check__single_broken_files_are_told(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dinoidd"), "propagate", True)
    broken = root / "gtFine/val/0/002_gtFine_labellevel3Ids.png"
    break_file(broken)
    assert check(root).encoding == "official"
    assert caplog.messages == [
        f"in 'val' 1 of 3 images ({broken}: cannot be read as an image: the end of the PNG of 80 bytes "
        "is lost) cannot be read: such images are left out"
    ]
    image = root / "leftImg8bit/train/0/003_leftImg8bit.png"
    image.write_bytes(b"hello")
    assert check(root).broken == 2
    assert caplog.messages[1] == (
        f"in 'train' 1 of 10 images ({image}: cannot be read as an image: bytes of no known format) "
        "cannot be read: such images are left out"
    )
    for path in root.glob("gtFine/val/0/*.png"):
        path.write_bytes(b"")
    assert refusal(InputError, root).startswith(
        "not one label of 'val' can be read: 3 of 3 images ("
    )


def polygon_set(root: Path) -> Path:
    for split, count in (("train", 5), ("val", 2)):
        for i in range(count):
            idd_image(root, split, f"{i:03d}", i)
            idd_polygons(root, split, f"{i:03d}")
    return root


def test_check__polygons_alone_are_official(tmp_path: Path) -> None:
    root = polygon_set(tmp_path)
    found = check(root)
    assert (found.encoding, found.sentence) == ("official", "labels are drawn from polygons")
    assert found.pixels.total() == 5 * 256 * 256  # of the training split alone
    for path in root.glob("gtFine/val/0/*.json"):
        path.write_text('{"imgWidth": 64, "imgHeight": 36, "objects": []}')
    assert refusal(InputError, root).startswith(
        "all 2 labels of 'val' that were looked at are void"
    )
    for path in root.glob("gtFine/val/0/*.json"):
        path.write_text("{")
    assert refusal(InputError, root).startswith(
        "not one label of 'val' can be read: 2 of 2 images (label "
    )


def test_check__in_a_bucket(root: Path, s3: S3) -> None:
    client, bucket = s3.client(), s3.new_bucket()
    for path in root.rglob("*.png"):
        client.upload_file(str(path), bucket, f"idd/{path.relative_to(root)}")
    found = check(f"s3://{bucket}/idd", endpoint_url=s3.endpoint_url)  # type: ignore[arg-type]
    assert found == check(root)


def test_spread__seeded_and_over_both_splits() -> None:
    def split(count: int) -> list[Sample]:
        return [Sample(key=str(i), image="i", label="l") for i in range(count)]

    def sizes(train: int, val: int) -> list[int]:
        return [len(s) for s in _spread(Samples(train=split(train), val=split(val)), 0)]

    assert sizes(7000, 1000) == [MOST // 2, MOST // 2]
    assert sizes(7000, 30) == [MOST - 30, 30]
    assert sizes(20, 7000) == [20, MOST - 20]
    assert sizes(5, 5) == [5, 5]
    samples = Samples(train=split(7000), val=split(1000))
    assert list(_spread(samples, 1)) == list(_spread(samples, 1)) != list(_spread(samples, 2))
    (train, _) = _spread(samples, 1)
    assert min(int(s.key) for s in train) < 700
    assert max(int(s.key) for s in train) > 6300
