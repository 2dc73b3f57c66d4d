"""Which prediction belongs to which label: splits of any name, folders in folders, and ambiguity."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_files import SmallSet, make_set, run, save, street
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.classes import IDD
from dinoidd.cli import main
from dinoidd.evaluation.config import default_resolution
from dinoidd.evaluation.splits import Splits
from dinoidd.storage import StorageOptions

FRAMES = ("a", "b")


@pytest.fixture
def small(tmp_path: Path) -> SmallSet:
    return make_set(tmp_path)


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    for seed, split in enumerate(("day", "night")):
        for i, name in enumerate(FRAMES):
            ids = street(10 * seed + i)
            save(tmp_path / "images" / split / f"{name}.png", np.dstack([ids] * 3))
            save(tmp_path / "annotations" / split / f"{name}.png", ids)
            save(tmp_path / "pred" / split / f"{name}.png", np.where(ids == 255, 0, ids))
    return tmp_path


@pytest.mark.parametrize("split", ["day", "night"])
def test_evaluate__a_split_of_any_name(custom: Path, split: str) -> None:
    where = ("--data", custom, "--split", split, "--predictions", custom / "pred")
    result = run(*where, to=custom)
    other = {"day": "night", "night": "day"}[split]
    assert result["levels"]["level3"]["mean_iou"] > 0.8
    assert result["frames"]["of_other_splits"] == {other: 2}
    assert result["frames"]["evaluated"] == 2


def test_evaluate__only_another_split_was_predicted(custom: Path, capsys) -> None:
    for name in FRAMES:
        (custom / "pred" / "night" / f"{name}.png").unlink()
    where = ["--data", str(custom), "--split", "night", "--predictions", str(custom / "pred")]
    assert main(["evaluate", *where]) == 2
    assert capsys.readouterr().err.endswith(
        f"all 2 predictions in {custom}/pred are left out: the names of their folders say that they are "
        f"of another split (day) than the ground truth in {custom}/annotations/night (night); choose "
        "those of night, or rename the folder\n"
    )


def test_evaluate__a_run_over_splits_of_any_name(custom: Path, tmp_path: Path) -> None:
    out = SyntheticOutput(tmp_path / "run", images=4, errors={}, height=36, width=64)
    for image_id in range(4):
        uri = f"{custom}/images/{'day' if image_id < 2 else 'night'}/{FRAMES[image_id % 2]}.png"
        out.edit(image_id, lambda row, uri=uri: row.update(uri=uri))
    (tmp_path / "toy.json").write_text(json.dumps(TABLE.to_dict()))
    for image_id in (2, 3):
        save(custom / "annotations" / "night" / f"{FRAMES[image_id % 2]}.png", out.mask(image_id))
    where = ("--data", custom, "--split", "night", "--predictions", out.out)
    result = run(*where, "--classes", tmp_path / "toy.json", to=tmp_path)
    assert result["levels"]["toy"]["mean_iou"] == 1.0
    assert result["frames"]["of_other_splits"] == {"day": 2}


def test_evaluate__ambiguous_without_a_split(custom: Path) -> None:
    """--ground-truth does not tell which split's predictions are meant."""
    where = ("--ground-truth", custom / "annotations" / "night", "--predictions", custom / "pred")
    (custom / "pred" / "day" / "b.png").unlink()
    result = run(*where, rc=1, to=custom)
    (problem,) = result["problems"]
    assert problem["what"] == (
        f"a second prediction of frame a, beside {custom}/pred/day/a.png: neither counts"
    )
    assert result["frames"]["evaluated"] == 1


def test_evaluate__the_same_camera_of_other_days(tmp_path: Path) -> None:
    for day in "AB":
        save(tmp_path / f"gt/val/day{day}/cam0/1.png", street(ord(day)))
    save(tmp_path / "pred/dayB/cam0/1.png", np.where(street(66) == 255, 0, street(66)))
    where = ("--ground-truth", tmp_path / "gt/val", "--predictions", tmp_path / "pred")
    result = run(*where, rc=1, to=tmp_path)
    assert result["levels"]["level3"]["pixel_accuracy"] == 1.0
    assert result["frames"]["without_prediction"] == ["dayA/cam0/1"]
    assert [drive["drive"] for drive in result["drives"]] == ["dayB/cam0"]
    (tmp_path / "gt/val/dayB/cam0/1.png").unlink()
    assert main(["evaluate", *map(str, where)]) == 2


def test_evaluate__names_that_repeat_over_splits(small: SmallSet) -> None:
    save(small.root / "gtFine/train/0/000000_gtFine_labellevel3Ids.png", street(50))
    where = ("--ground-truth", small.root / "gtFine", "--predictions", small.pred)
    result = run(*where, rc=1, to=small.root)
    (problem,) = result["problems"]
    assert problem["file"] == str(small.drawn("0", "000000"))
    assert problem["what"] == (
        "fits the labels of 2 frames (train/0/000000, val/0/000000): it is left out"
    )
    assert result["frames"]["evaluated"] == 5


def test_evaluate__two_labels_of_a_frame(small: SmallSet) -> None:
    save(small.pred / "x" / "1.png", street(0))
    for name in ("1_mask.png", "1_seg.png"):
        save(small.root / "gt" / "x" / name, street(0))
    save(small.root / "gt" / "x" / "2.png", street(2))
    save(small.pred / "x" / "2.png", street(2))
    where = ("--ground-truth", small.root / "gt", "--predictions", small.pred / "x")
    result = run(*where, rc=1, to=small.root)
    gt = small.root / "gt" / "x"
    assert [p["what"] for p in result["problems"]] == [
        f"a second label of frame x/1, beside {gt}/1_mask.png: neither counts"
    ]
    assert result["frames"]["evaluated"] == 1


def test_evaluate__folders_above_are_no_split(small: SmallSet) -> None:
    (small.root / "test").mkdir()
    (small.root / "gtFine").rename(small.root / "test" / "gtFine")
    (small.root / "both").mkdir()
    small.pred.rename(small.root / "both" / "val")
    where = ("--ground-truth", small.root / "test/gtFine", "--predictions", small.root / "both")
    assert run(*where, to=small.root)["frames"]["evaluated"] == 6


def test_evaluate__a_folder_of_predictions_that_is_called_train(small: SmallSet, capsys) -> None:
    small.pred.rename(small.root / "train")
    where = ["--data", str(small.root), "--predictions", str(small.root / "train")]
    assert main(["evaluate", *where]) == 2
    assert (
        f"all 6 predictions in {small.root}/train are left out: the names of their folders say that "
        f"they are of another split (train) than the ground truth in {small.truth} (val); choose those "
        "of val, or rename the folder"
    ) in capsys.readouterr().err


def test_evaluate__split_goes_with_data(small: SmallSet, capsys) -> None:
    where = ["--ground-truth", str(small.truth), "--predictions", str(small.pred)]
    assert main(["evaluate", *where, "--split", "val"]) == 2
    assert "--split val goes with --data: --ground-truth is the folder of one split" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("folder", "other"),
    [
        ("/x/leftImg8bit/train/12", "train"),
        ("s3://b/gtFine/val_night/12", "val_night"),
        ("/x/leftImg8bit/val/12", None),
        ("/preds/val/12", None),
        ("/preds/test/12", "test"),
        ("/camvid/trainannot", "train"),
        ("/x/night/7", "night"),  # a folder beside the ground truth
        ("/x/nothing/7", None),
        ("/train/x/y/12", None),
        ("/x/leftImg8bit/12", None),
        ("", None),
    ],
)
def test_splits__of_folders(tmp_path: Path, folder: str, other: str | None) -> None:
    (tmp_path / "annotations" / "night").mkdir(parents=True)
    splits = Splits.of(f"{tmp_path}/annotations/val", None, StorageOptions())
    assert splits.other(folder, 2) == other


@pytest.mark.parametrize(
    ("root", "wanted"),
    [
        ("/x/gtFine/val", "val"),
        ("/x/gtFine/night", "night"),
        ("/x/gtFine/val/12", "val"),
        ("/x/camvid/testannot", "test"),
        ("/x/test/gtFine", None),
        ("/x/val/labels", None),
    ],
)
def test_splits__of_the_ground_truth(root: str, wanted: str | None) -> None:
    assert Splits.of(root, None, StorageOptions()).wanted == wanted
    assert Splits.of(root, "mine", StorageOptions()).wanted == "mine"


def test_default_resolution__is_the_official_one_for_idd_alone() -> None:
    assert default_resolution(IDD) == "720"
    assert default_resolution(replace(IDD, name="idd_mine")) == "native"
