import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_files import FIXTURE, SmallSet, class_of, make_set, run, save, street, worse
from PIL import Image

from dinoidd.classes import BUILT_IN, IDD, IDD_LEVEL2, ClassTable
from dinoidd.cli import main
from dinoidd.evaluation.config import RESOLUTIONS


@pytest.fixture
def small(tmp_path: Path) -> SmallSet:
    return make_set(tmp_path)


def ious(result: dict, level: str) -> list[float | None]:
    return [entry["iou"] for entry in result["levels"][level]["classes"]]


@pytest.mark.parametrize("resolution", ["720", "240"])
def test_evaluate__fixture_to_the_last_integer(tmp_path: Path, resolution: str) -> None:
    expected = json.loads((FIXTURE / "expected.json").read_text())["results"][resolution]
    result = run(
        *("--ground-truth", FIXTURE / "gt", "--predictions", FIXTURE / "pred"),
        *("--resolution", resolution),
        to=tmp_path,
    )
    assert result["confusion"]["matrix"] == expected["confusion"]
    for level, key in [
        ("level3", "iou_level3"),
        ("level2", "iou_level2"),
        ("level1", "iou_level1"),
        ("level1_as_official_script_prints", "iou_level1_as_official_script_prints"),
    ]:
        assert len(ious(result, level)) == len(expected[key])
        for ours, theirs in zip(ious(result, level), expected[key], strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or abs(ours - theirs) <= 1e-12
        present = [value for value in expected[key] if value is not None]
        assert abs(result["levels"][level]["mean_iou"] - sum(present) / len(present)) <= 1e-12
    assert result["levels"]["level3"]["presence"] == "25 of 26 classes present; absent: rail track"


def test_evaluate__any_number_of_processes_counts_the_same(small: SmallSet) -> None:
    make_set(small.root, drives=8, frames=9)  # more batches than one process is given
    one, two = (small.evaluate("--workers", n) for n in (1, 2))
    for result in (one, two):
        result["frames"].pop("seconds")
    assert one == two
    assert one["frames"]["evaluated"] == 72


def test_evaluate__drives_add_up_and_names_repeat_in_drives(small: SmallSet) -> None:
    result = small.evaluate("--resolution", "native")
    assert [(d["drive"], d["frames"]) for d in result["drives"]] == [("0", 3), ("1", 3)]
    assert np.array(result["confusion"]["matrix"]).sum() == 6 * 36 * 64
    low, high = result["intervals"]["mean_iou"]
    assert low <= result["levels"]["level3"]["mean_iou"] <= high
    assert (result["intervals"]["resampled"], result["intervals"]["units"]) == ("drives", 2)
    again = small.evaluate("--resolution", "native")
    assert again["intervals"] == result["intervals"]


def test_evaluate__missing_on_either_side_is_named_and_counted(small: SmallSet, capsys) -> None:
    small.drawn("0", "000001").unlink()
    small.label("1", "000002").unlink()
    result = small.evaluate(rc=1)
    assert result["frames"]["without_prediction"] == ["0/000001"]
    assert result["frames"]["without_label"] == ["1/000002"]
    assert result["frames"]["evaluated"] == 4
    printed = capsys.readouterr().out
    assert "labelled frames without a prediction: 1: 0/000001" in printed
    assert "predicted frames without a label: 1: 1/000002" in printed
    assert small.evaluate("--allow-missing", rc=0)["confusion"] == result["confusion"]


def test_evaluate__bad_files_are_told_and_the_rest_counts(small: SmallSet) -> None:
    expected = small.evaluate("--resolution", "native")
    keep = [small.label("1", f"00000{i}") for i in range(3)]
    small.drawn("0", "000000").write_bytes(b"no PNG")
    small.label("0", "000001").write_bytes(small.label("0", "000001").read_bytes()[:-30])
    save(small.drawn("0", "000002"), street(1, (36, 60)))
    result = small.evaluate("--resolution", "native", rc=1)
    told = {Path(p["file"]): p["what"] for p in result["problems"]}
    assert told[small.drawn("0", "000000")] == (
        "not_an_image: cannot be read as an image: 6 bytes of no known format"
    )
    assert told[small.label("0", "000001")].startswith(
        "truncated: cannot be read as an image: the end of the PNG of "
    )
    assert told[small.drawn("0", "000002")] == (
        "60x36 pixels, its label has 64x36: --allow-size-mismatch, or a --resolution, resizes it"
    )
    assert not any(p["counted"] for p in result["problems"])
    assert result["frames"]["evaluated"] == len(keep)
    assert result["drives"][0] == expected["drives"][1]


@pytest.mark.parametrize("resolution", ["720", "240"])
def test_evaluate__other_sizes_are_resized_alike(small: SmallSet, resolution: str) -> None:
    """As the official script does, which resizes both whatever they are."""
    path, size = small.drawn("0", "000000"), RESOLUTIONS[resolution]
    Image.open(path).resize((50, 31), Image.Resampling.NEAREST).save(path)
    expected = np.zeros((27, 27), int)
    for truth in small.truth.rglob("*.png"):
        files = truth, small.drawn(truth.parent.name, truth.name.partition("_")[0])
        images = (Image.open(f).resize(size, Image.Resampling.NEAREST) for f in files)
        np.add.at(expected, tuple(np.minimum(np.asarray(image), 26) for image in images), 1)
    result = small.evaluate("--resolution", resolution, rc=1)
    assert result["confusion"]["matrix"] == expected.tolist()
    (problem,) = result["problems"]
    assert (problem["file"], problem["counted"]) == (str(path), True)
    assert problem["what"] == (
        "50x31 pixels, its label has 64x36, another aspect ratio: both were stretched to one size; "
        "check that they are of the same frame"
    )
    small.evaluate("--resolution", resolution, "--allow-size-mismatch", rc=0)


def test_evaluate__other_sizes_of_the_same_shape_are_no_problem(small: SmallSet) -> None:
    for name, size in (("000000", (128, 72)), ("000001", (85, 48))):  # 85x48 is 0.4 % off 16:9
        path = small.drawn("0", name)
        Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)
    assert small.evaluate(rc=0)["problems"] == []


def test_evaluate__nothing_countable_tells_what_to_do(small: SmallSet, capsys) -> None:
    for path in small.pred.rglob("*.png"):
        path.write_bytes(b"no PNG")
    assert main(["evaluate", "--data", str(small.root), "--predictions", str(small.pred)]) == 2
    assert capsys.readouterr().err.endswith(
        "6 bytes of no known format; mend or replace the files, and check that --classes is the class "
        "table of the labels and the predictions\n"
    )


def test_evaluate__another_size_at_native_resolution(small: SmallSet) -> None:
    path = small.drawn("0", "000000")
    expected = Image.open(path).resize((32, 18), Image.Resampling.NEAREST)
    expected.save(path)
    result = small.evaluate("--resolution", "native", rc=1)
    assert result["frames"]["evaluated"] == 5
    allowed = small.evaluate("--resolution", "native", "--allow-size-mismatch")
    expected.resize((64, 36), Image.Resampling.NEAREST).save(path)
    assert allowed["confusion"] == small.evaluate("--resolution", "native")["confusion"]


def test_evaluate__unknown_raw_values_are_void_and_told(small: SmallSet) -> None:
    ids = street(0)
    ids[:2, :5] = 77
    ids[2, 0] = 26
    save(small.label("0", "000000"), ids)
    result = small.evaluate("--resolution", "native", rc=1)
    contradiction, problem = result["problems"]
    assert contradiction["what"] == (
        "raw values 26, 77 occur: neither of IDD's level 3 encodings; use the level3Id label images"
    )
    assert problem["file"] == str(small.label("0", "000000"))
    assert problem["what"].startswith(
        "raw values that the class table does not name: 77 (10 px), 26 (1 px)"
    )
    assert problem["counted"]
    assert result["frames"]["evaluated"] == 6
    voids = sum(int((np.array(Image.open(p)) > 25).sum()) for p in small.truth.rglob("*.png"))
    assert sum(result["confusion"]["matrix"][26]) == voids


def test_evaluate__road255_labels(small: SmallSet) -> None:
    expected = small.evaluate("--resolution", "native")
    for path in small.truth.rglob("*.png"):
        ids = np.array(Image.open(path))
        void = ids == 255
        ids[ids == 0] = 255
        ids[void] = 24
        save(path, ids)
    result = small.evaluate("--resolution", "native", "--encoding", "road255")
    assert class_of(result, "road") == class_of(expected, "road") | {
        key: class_of(result, "road")[key] for key in ("precision", "iou", "predicted_pixels")
    }
    wrong = small.evaluate("--resolution", "native", rc=1)
    assert wrong["problems"][0]["what"] == (
        "0 occurs in none of 6 label images, and 255 covers much of 6: 255 is road here (encoding "
        "`road255`); set --encoding road255"
    )


def test_evaluate__official_labels_read_as_road255(small: SmallSet) -> None:
    result = small.evaluate("--encoding", "road255", rc=1)
    assert result["problems"][0]["what"] == (
        "0 (road) occurs in 6 of 6 label images, as it does in the official encoding alone; set "
        "--encoding official"
    )
    assert len(result["problems"]) == 1 + 6  # and every file, whose 0 means nothing


@pytest.mark.parametrize(
    "pattern",
    [
        "{drive}/{frame}.png",
        "{drive}/{frame}_leftImg8bit.png",
        "{drive}/{frame}_leftImg8bit_pred.png",
        "val/{drive}/{frame}_mask.png",
        "{drive}_{frame}.png",
    ],
)
def test_evaluate__names_of_predictions(small: SmallSet, pattern: str) -> None:
    expected = small.evaluate()["confusion"]
    for drive, frame in [(d, f"00000{f}") for d in "01" for f in range(3)]:
        path = small.root / "other" / pattern.format(drive=drive, frame=frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        small.drawn(drive, frame).rename(path)
    result = run("--data", small.root, "--predictions", small.root / "other", to=small.root)
    assert result["confusion"] == expected


def test_evaluate__a_prediction_of_another_drive_is_no_match(small: SmallSet) -> None:
    (small.pred / "1").rename(small.pred / "9")
    result = small.evaluate(rc=1)
    assert result["frames"]["without_prediction"] == [f"1/00000{i}" for i in range(3)]
    assert result["frames"]["without_label"] == [f"9/00000{i}" for i in range(3)]


def test_evaluate__two_predictions_of_a_frame(small: SmallSet) -> None:
    save(small.pred / "again" / "0" / "000000_gtFine_labellevel3Ids.png", street(5))
    result = small.evaluate(rc=1)
    (problem,) = result["problems"]
    assert problem["what"] == (
        f"a second prediction of frame 0/000000, beside {small.drawn('0', '000000')}: neither counts"
    )
    assert result["frames"]["evaluated"] == 5


def test_evaluate__label_suffix(small: SmallSet, capsys) -> None:
    for path in list(small.truth.rglob("*.png")):
        ids = np.array(Image.open(path))
        names = {"labelids": ids * 0, "labelmine": ids}
        for kind, values in names.items():
            save(path.with_name(path.name.replace("labellevel3Ids", kind)), values)
    expected = small.evaluate()["confusion"]
    assert small.evaluate("--label-suffix", "labelmine")["confusion"] == expected
    for path in small.truth.rglob("*labellevel3Ids.png"):
        path.unlink()
    assert main(["evaluate", "--data", str(small.root), "--predictions", str(small.pred)]) == 2
    error = capsys.readouterr().err
    assert "holds no *_gtFine_labellevel3Ids.png (kinds there: labelids, labelmine" in error
    assert "choose one with --label-suffix" in error


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ("idd", "labellevel3Ids"),
        ("idd_level2", "labellevel2Ids"),
        ("idd_level1", "labellevel1Ids"),
        ("cityscapes", "labelIds"),
        ("cityscapes_train_ids", "labelTrainIds"),
        ("cityscapes_train_ids", "labelcsTrainIds"),
    ],
)
def test_evaluate__the_class_table_chooses_the_label_files(
    small: SmallSet, table: str, kind: str, capsys
) -> None:
    raw = BUILT_IN[table].raw_values
    values = [value for value, class_id in raw.values.items() if class_id != 255]
    for path in list(small.truth.rglob("*.png")):
        save(path, np.full((36, 64), 33, np.uint8))  # a name that is not the table's
        right = np.resize(np.array(values, np.uint8), (36, 64))
        path.rename(path.with_name(path.name.replace("labellevel3Ids", "labelids")))
        save(path.with_name(path.name.replace("labellevel3Ids", kind)), right)
        drive, frame = path.parent.name, path.name.partition("_")[0]
        small.drawn(drive, frame).unlink()
        save(small.pred / drive / f"{frame}.png", raw.decode(right))
    result = small.evaluate("--classes", table)
    assert result["levels"][result["finest_level"]]["mean_iou"] == 1.0
    for path in small.truth.rglob(f"*{kind}.png"):
        path.unlink()
    where = ["--data", str(small.root), "--predictions", str(small.pred), "--classes", table]
    assert main(["evaluate", *where]) == 2
    assert "(kinds there: labelids, and 0 other PNGs)" in capsys.readouterr().err


def test_evaluate__a_table_without_a_kind_takes_the_only_one(small: SmallSet, capsys) -> None:
    entries = [{"name": f"class {i}", "color": [i, i, i]} for i in range(26)]
    table = small.root / "mine.json"
    table.write_text(json.dumps({"name": "mine", "classes": entries}))
    assert small.evaluate("--classes", table)["frames"]["evaluated"] == 6
    save(small.truth / "0" / "000000_gtFine_labelids.png", street(0))
    where = ["--data", str(small.root), "--predictions", str(small.pred)]
    assert main(["evaluate", *where, "--classes", str(table)]) == 2
    assert "label images of several kinds (kinds there: labelids, labellevel3Ids" in (
        capsys.readouterr().err
    )
    small.evaluate("--classes", table, "--label-suffix", "_gtFine_labellevel3Ids.png")


def test_evaluate__predictions_named_as_another_kind(small: SmallSet, capsys) -> None:
    for path in list(small.pred.rglob("*.png")):
        path.rename(path.with_name(path.name.replace("labellevel3Ids", "labelids")))
    where = ["--data", str(small.root), "--predictions", str(small.pred)]
    assert main(["evaluate", *where]) == 2
    assert "predictions are class ids, call them NAME.png" in capsys.readouterr().err


def test_evaluate__idds_classes_with_raw_values_of_their_own(small: SmallSet) -> None:
    expected = small.evaluate()
    table = IDD.to_dict() | {"ignore": [255]}
    for class_id, entry in enumerate(table["classes"]):
        entry["values"] = [100 + class_id]
    (small.root / "mine.json").write_text(json.dumps(table))
    for path in small.truth.rglob("*.png"):
        ids = np.array(Image.open(path))
        save(path, np.where(ids == 255, ids, ids + 100).astype(np.uint8))
    result = small.evaluate("--classes", small.root / "mine.json")
    assert result["confusion"] == expected["confusion"]
    assert result["settings"]["encoding"] == "table"


def test_evaluate__frames_of_other_splits_are_left_out(small: SmallSet, capsys) -> None:
    expected = small.evaluate()
    for path in list(small.pred.rglob("*.png")):
        name = path.relative_to(small.pred)
        save(small.root / "both" / "train" / name, street(99))
        path.parent.mkdir(parents=True, exist_ok=True)
        save(small.root / "both" / "val" / name, np.array(Image.open(path)))
    both = ("--data", small.root, "--predictions", small.root / "both")
    result = run(*both, to=small.root)
    assert result["confusion"] == expected["confusion"]
    assert result["frames"]["of_other_splits"] == {"train": 6}
    assert "predictions of split train, left out: 6" in capsys.readouterr().out
    (small.root / "both" / "val" / "1" / "000002_gtFine_labellevel3Ids.png").unlink()
    result = run(*both, rc=1, to=small.root)
    assert result["frames"]["without_prediction"] == ["1/000002"]
    run(*both, "--allow-missing", to=small.root)
    train = ["--data", str(small.root), "--predictions", str(small.root / "both" / "train")]
    assert main(["evaluate", *train]) == 2
    assert "are of another split (train) than the ground truth in" in capsys.readouterr().err


def test_evaluate__text_leaves_out_an_official_level_without_a_figure(
    small: SmallSet, capsys
) -> None:
    small.evaluate()
    assert "level1, official" in capsys.readouterr().out
    for path in small.root.rglob("*.png"):
        save(path, np.full((36, 64), 25, np.uint8))
    small.evaluate()
    assert "level1, official" not in capsys.readouterr().out


def test_evaluate__coarse_table(small: SmallSet) -> None:
    level2 = IDD.level("level2")
    lookup = np.array([*level2.of, *[255] * 230], np.uint8)
    for path in list(small.root.rglob("*.png")):
        coarse = path.with_name(path.name.replace("level3", "level2"))
        save(coarse, lookup[np.array(Image.open(path))])
    result = small.evaluate("--classes", "idd_level2")
    assert list(result["levels"]) == ["idd_level2", "level1"]
    assert result["settings"]["resolution"] == "720"
    assert len(result["confusion"]["matrix"]) == len(IDD_LEVEL2) + 1


def test_evaluate__own_table_with_colours_and_levels(tmp_path: Path) -> None:
    table = {
        "name": "mine",
        "classes": [
            {"name": "floor", "color": [9, 9, 9], "values": [[1, 2, 3], [4, 5, 6]]},
            {"name": "wall", "color": [99, 9, 9], "values": [[7, 7, 7]]},
            {"name": "door", "color": [9, 9, 99], "values": [[8, 8, 8]]},
        ],
        "ignore": [[0, 0, 0]],
        "hierarchy": [
            {
                "name": "coarse",
                "classes": [
                    {"name": "flat", "members": ["floor"]},
                    {"name": "tall", "members": ["wall", "door"]},
                ],
            }
        ],
    }
    (tmp_path / "table.json").write_text(json.dumps(table))
    assert len(ClassTable.from_dict(table)) == 3
    colors = [[1, 2, 3], [4, 5, 6], [7, 7, 7], [8, 8, 8], [0, 0, 0], [66, 66, 66]]
    save(tmp_path / "gt" / "a.png", np.array([colors], np.uint8))
    save(tmp_path / "pred" / "a.png", np.array([[0, 1, 1, 1, 0, 2]], np.uint8))
    result = run(
        *("--ground-truth", tmp_path / "gt", "--predictions", tmp_path / "pred"),
        *("--classes", tmp_path / "table.json"),
        rc=1,
        to=tmp_path,
    )
    assert result["confusion"]["matrix"] == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 1, 0],
    ]
    assert result["settings"]["size"] is None
    assert ious(result, "mine") == [1 / 2, 1 / 3, 0.0]
    assert ious(result, "coarse") == [1 / 2, 2 / 3]
    assert "[66, 66, 66] (1 pixels)" in result["problems"][0]["what"]


def test_evaluate__palette_predictions_and_16_bit_ones(small: SmallSet) -> None:
    expected = small.evaluate()["confusion"]
    image = Image.open(small.drawn("0", "000000"))
    image.putpalette(IDD.palette)
    image.save(small.drawn("0", "000000"))
    assert small.evaluate()["confusion"] == expected
    Image.fromarray(np.full((36, 64), 300, np.uint16)).save(small.drawn("0", "000001"))
    Image.new("RGB", (64, 36)).save(small.drawn("0", "000002"))
    told = [p["what"] for p in small.evaluate(rc=1)["problems"]]
    assert told == [
        "unsupported: has pixels of the kind I;16: 8-bit values are needed",
        "unsupported: an image in colour: the class table reads one 8-bit channel",
    ]


def test_evaluate__a_class_that_was_predicted_only(small: SmallSet) -> None:
    drawn = worse(street(0), 0)
    drawn[0, 0] = 3
    save(small.drawn("0", "000000"), drawn)
    level3 = small.evaluate("--resolution", "native")["levels"]["level3"]
    assert "rail track" in level3["predicted_only"]
    assert "rail track" not in level3["absent"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--resolution", "900"), "--resolution 900: there are 720, 1080, 480, 240, native"),
        (("--encoding", "mine"), "--encoding mine: there are official, road255"),
        (("--encoding", "road255", "--classes", "camvid"), "is one of IDD's"),
        (("--boundary-ratio", "2"), "--boundary-ratio 2.0: more than 0, at most 0.5"),
        (("--bootstrap-samples", "3"), "at least 100 make an interval"),
        (("--workers", "0"), "--workers 0: at least 1 is needed"),
        (("--classes", "nothing"), "unknown class table 'nothing'"),
    ],
)
def test_evaluate__wrong_options(small: SmallSet, capsys, args: tuple, message: str) -> None:
    where = ["--data", str(small.root), "--predictions", str(small.pred)]
    assert main(["evaluate", *where, *args]) == 2
    assert message in capsys.readouterr().err


def test_evaluate__nothing_to_evaluate(small: SmallSet, capsys) -> None:
    where = ["--predictions", str(small.pred)]
    assert main(["evaluate", "--data", str(small.root), "--split", "test", *where]) == 2
    (small.root / "json").mkdir()
    (small.root / "json" / "a_gtFine_polygons.json").write_text("{}")
    assert main(["evaluate", "--ground-truth", str(small.root / "json"), *where]) == 2
    assert "dinoidd data labels" in capsys.readouterr().err
    save(small.root / "elsewhere" / "7" / "x.png", street(0))
    where = ["--predictions", str(small.root / "elsewhere")]
    assert main(["evaluate", "--data", str(small.root), *where]) == 2
    error = capsys.readouterr().err
    assert "(6 frames, such as 0/000000) and a prediction in" in error
    assert "(1, such as 7/x)" in error


def test_evaluate__results_that_cannot_be_written_are_told_first(small: SmallSet, capsys) -> None:
    (small.root / "file").write_text("")
    where = ["--data", str(small.root), "--predictions", str(small.pred)]
    for option in ("--json", "--report"):
        target = str(small.root / "file" / "x.json")
        assert main(["evaluate", *where, option, target]) == 2
        assert "cannot be written" in capsys.readouterr().err


def test_evaluate__a_folder_is_made_for_the_json(small: SmallSet) -> None:
    where = ["--data", str(small.root), "--predictions", str(small.pred)]
    assert main(["evaluate", *where, "--json", str(small.root / "new" / "run.json")]) == 0
    names = sorted(path.name for path in (small.root / "new").iterdir())
    assert names == ["run.counts.parquet", "run.json"]
