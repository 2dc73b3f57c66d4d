"""Which label images belong to a class table, and which split a file is of."""

import os
from pathlib import Path

import numpy as np
import pytest
from evaluation_files import save

from dinoidd.classes import BUILT_IN, IDD, ClassTable, RawValues
from dinoidd.data.frames import LABEL_KINDS, find_frames, label_kind, label_suffixes, split_folders
from dinoidd.data.inspect import inspect_dataset
from dinoidd.errors import ConfigError
from dinoidd.evaluation.label_files import truth_kinds


@pytest.mark.parametrize("kind", ["labelTrainIds", "labelcsTrainIds"])
def test_inspect__both_names_of_train_ids(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "gtFine" / "val" / "0" / "a_gtFine_labellevel3Ids.png", np.uint8([[25]]))
    label = save(tmp_path / "gtFine" / "val" / "0" / f"a_gtFine_{kind}.png", np.uint8([[13, 18]]))
    table = BUILT_IN["cityscapes_train_ids"]
    found = inspect_dataset(str(tmp_path), table=table, workers=1)
    assert [c.name for c in found.classes() if c.images] == ["car", "bicycle"]
    assert found.files.frames["val/0/a"].label == str(label)


def test_inspect__idds_classes_with_raw_values_of_their_own(tmp_path: Path) -> None:
    save(tmp_path / "gtFine" / "val" / "0" / "a_gtFine_labellevel3Ids.png", np.uint8([[40, 255]]))
    raw = RawValues(values={40: 9, 255: 255})
    table = ClassTable(name="idd", classes=IDD.classes, raw=raw)
    found = inspect_dataset(str(tmp_path), table=table, workers=1)
    assert found.verdict is None
    assert {c.name for c in found.classes() if c.images} == {"car", "void"}


def test_label_kinds__are_those_of_built_in_tables() -> None:
    assert set(LABEL_KINDS) <= set(BUILT_IN)
    assert label_suffixes("camvid") == ("_gtFine_labellevel3Ids.png",)
    assert label_kind("/x/a_gtFine_labelIds.png") == "labelIds"
    assert label_kind("/x/a_mask.png") is None


def test_find_frames__a_second_kind_is_a_double(tmp_path: Path) -> None:
    for kind in LABEL_KINDS["cityscapes_train_ids"]:
        save(tmp_path / "gtFine" / "val" / "0" / f"a_gtFine_{kind}.png", np.uint8([[0]]))
    found = find_frames(str(tmp_path), label_suffixes("cityscapes_train_ids"))
    assert len(found.frames) == len(found.doubles) == 1


def test_find_frames__an_edit_of_equal_size_is_another_file(tmp_path: Path) -> None:
    polygons = tmp_path / "gtFine" / "val" / "0" / "a_gtFine_polygons.json"
    polygons.parent.mkdir(parents=True)
    stamps = []
    for second, name in enumerate(("car", "bus", "bus")):
        polygons.write_text(f'{{"label": "{name}"}}')
        os.utime(polygons, (min(second, 1), min(second, 1)))
        stamps.append(find_frames(str(tmp_path)).frames["val/0/a"].stamp)
    assert stamps[0] != stamps[1] == stamps[2]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("leftImg8bit/val", "gtFine/val"),
        ("images/val", "annotations/val"),
        ("images/val", "masks/val"),
        ("val", "valannot"),
    ],
)
def test_split_folders__layouts(tmp_path: Path, images: str, labels: str) -> None:
    save(tmp_path / labels / "a.png", np.uint8([[0]]))
    found = split_folders(str(tmp_path), "val")
    assert found == (str(tmp_path / images), str(tmp_path / labels))


@pytest.mark.parametrize("text", ["labelids", "_gtFine_labelids.png"])
def test_label_suffix__is_a_kind_for_inspect_and_evaluate(tmp_path: Path, text: str) -> None:
    label = save(tmp_path / "gtFine" / "val" / "0" / "a_gtFine_labelids.png", np.uint8([[33]]))
    found = inspect_dataset(str(tmp_path), label_suffix=text, workers=1)
    assert found.files.frames["val/0/a"].label == str(label)
    assert truth_kinds(IDD, text).names == ("labelids",)


@pytest.mark.parametrize("kind", ["labellevel2Ids", "_gtFine_labellevel2Ids.png"])
def test_label_suffix__of_another_class_table_is_refused(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "gtFine" / "val" / "0" / "a_gtFine_labellevel2Ids.png", np.uint8([[15]]))
    message = (
        f"--label-suffix {kind}: these label images hold the raw values of the class table "
        "'idd_level2', not of 'idd': use --classes idd_level2"
    )
    with pytest.raises(ConfigError) as caught:
        inspect_dataset(str(tmp_path), label_suffix=kind, workers=1)
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        truth_kinds(IDD, kind)
    assert str(caught.value) == message
    own = ClassTable(name="idd", classes=IDD.classes, raw=RawValues(values={40: 9}))
    assert truth_kinds(own, kind).names == ("labellevel2Ids",)


def test_label_suffix__of_no_known_form() -> None:
    with pytest.raises(ConfigError, match=r"give KIND of the label images NAME_gtFine_KIND.png"):
        truth_kinds(IDD, "_mask.png")
