"""Class tables: the built-in ones, raw values and colours, levels, and a user's own file."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dinoidd.classes import (
    BUILT_IN,
    IDD,
    IDD_ENCODINGS,
    IDD_LEVEL1,
    IDD_LEVEL2,
    ClassInfo,
    ClassTable,
    RawValues,
    encodings_of,
    load_class_table,
)
from dinoidd.classes.idd_labels import IDD_LABELS, find_label
from dinoidd.errors import ClassTableError

SIZES = {
    "idd": 26,
    "idd_level2": 16,
    "idd_level1": 7,
    "cityscapes": 19,
    "cityscapes_train_ids": 19,
    "ade20k": 150,
    "camvid": 11,
    "camvid32": 31,  # and void: 32 colours
}
MINE: dict[str, Any] = {
    "name": "mine",
    "classes": [
        {"name": "road", "color": [1, 2, 3], "values": [7, [9, 9, 9]], "official": "carriageway"},
        {"name": "car", "color": [4, 5, 6], "values": [0]},
        {"name": "dog", "color": [7, 8, 9], "values": [3, 4]},
    ],
    "ignore": [255, [0, 0, 0]],
    "hierarchy": [
        {
            "name": "coarse",
            "classes": [
                {"name": "flat", "members": ["road"]},
                {"name": "thing", "members": ["car", "dog"], "color": [0, 0, 1]},
            ],
        }
    ],
}


def test_built_in__sizes() -> None:
    assert {name: len(table) for name, table in BUILT_IN.items()} == SIZES


def test_idd__dictionary_is_that_of_stored_runs() -> None:
    """Runs and checkpoints are known by it: whoever changes it ends every unfinished run."""
    stored = json.dumps(IDD.to_dict(), sort_keys=True).encode()
    assert hashlib.sha256(stored).hexdigest().startswith("692b1d92f85ba552")


def test_idd__colours_differ_and_six_are_fixed() -> None:
    colors = {info.name: info.color for info in IDD.classes}
    assert len(set(colors.values())) == 26
    assert (colors["road"], colors["car"]) == ((128, 64, 128), (0, 0, 142))
    assert (colors["person"], colors["building"]) == ((220, 20, 60), (70, 70, 70))
    assert (colors["vegetation"], colors["sky"]) == ((107, 142, 35), (70, 130, 180))
    official = {c.name: c.official for c in IDD.classes if c.official}
    assert official == {"parking": "drivable fallback", "rail track": "non-drivable fallback"}


def test_idd__levels_agree_with_the_labels() -> None:
    level2, level1 = IDD.level("level2"), IDD.level("level1")
    for label in IDD_LABELS.values():
        if label.level3 != 255:
            assert level2.of[label.level3] == label.level2
            assert level1.of[label.level3] == label.level1
            assert IDD_LEVEL2.level("level1").of[label.level2] == label.level1
    assert (IDD_LEVEL2.names, IDD_LEVEL1.names) == (level2.names, level1.names)


def test_idd_labels__ids_are_positions_and_groups_are_found() -> None:
    assert [label.id for label in IDD_LABELS.values()] == list(range(40))
    assert find_label("cargroup") is IDD_LABELS["car"]
    assert find_label("polegroup") is IDD_LABELS["polegroup"]
    assert find_label("group") is None
    assert find_label("cars") is None


@pytest.mark.parametrize("name", sorted(SIZES))
def test_to_dict__full_table_comes_back(name: str) -> None:
    table = BUILT_IN[name]
    again = ClassTable.from_dict(json.loads(json.dumps(table.to_dict(full=True))))
    assert (again, again.raw, again.hierarchy) == (table, table.raw, table.hierarchy)
    assert [c.official for c in again.classes] == [c.official for c in table.classes]
    assert ClassTable.from_dict(table.to_dict()) == table
    assert pickle.loads(pickle.dumps(table)) == table


def test_sum_matrix__adds_up_groups() -> None:
    confusion_CC = np.arange(26 * 26).reshape(26, 26)
    level = IDD.level("level2")
    summed_LL = level.sum_matrix(confusion_CC)
    assert summed_LL.shape == (16, 16)
    assert summed_LL[6, 8] == confusion_CC[np.ix_([6, 7], [10, 11, 12])].sum()
    assert summed_LL.sum() == confusion_CC.sum()


def test_level__unknown_name_tells_what_there_is() -> None:
    with pytest.raises(ClassTableError) as caught:
        IDD.level("level5")
    assert str(caught.value) == (
        "class table 'idd' has no level 'level5': there are ['level2', 'level1']"
    )


def test_decode__idd_in_both_encodings() -> None:
    raw_HW = np.array([[0, 1, 25, 255]], np.uint8)
    assert IDD.decode(raw_HW).tolist() == [[0, 1, 25, 255]]
    road255 = IDD_ENCODINGS["road255"]
    assert road255.decode(np.array([[255, 1, 25]], np.uint8)).tolist() == [[0, 1, 25]]
    with pytest.raises(ClassTableError, match=r"does not name: 0 \(1 pixels\)"):
        road255.decode(raw_HW)


def test_encodings_of__raw_values_of_its_own_are_not_idds() -> None:
    assert encodings_of(IDD) == IDD_ENCODINGS
    assert encodings_of(ClassTable.from_dict(IDD.to_dict(full=True))) == IDD_ENCODINGS
    own = ClassTable(name="idd", classes=IDD.classes, raw=RawValues(values={7: 0}))
    assert own == IDD
    assert encodings_of(own) == {"table": own.raw}


def test_stored__raw_values_are_kept_where_there_are_any() -> None:
    assert IDD.stored() == IDD.to_dict()
    cityscapes = BUILT_IN["cityscapes"]
    assert ClassTable.from_dict(cityscapes.stored()).raw == cityscapes.raw


def test_decode__cityscapes_ade20k_and_camvid() -> None:
    row = np.array([[7, 0, 33]], np.uint8)
    assert BUILT_IN["cityscapes"].decode(row).tolist() == [[0, 255, 18]]
    assert BUILT_IN["ade20k"].decode(np.array([[0, 1, 150]], np.uint8)).tolist() == [[255, 0, 149]]
    camvid = BUILT_IN["camvid"]
    assert camvid.decode(np.array([[0, 10, 11]], np.uint8)).tolist() == [[0, 10, 255]]


def test_decode__camvid_colours_and_their_groups() -> None:
    colors = np.array([[[128, 0, 192], [64, 128, 192], [0, 0, 0]]], np.uint8)
    fine, coarse = BUILT_IN["camvid32"], BUILT_IN["camvid"]
    ids = fine.decode(colors)[0]
    assert [fine.names[i] for i in ids[:2]] == ["LaneMkgsDriv", "SUVPickupTruck"]
    assert ids[2] == 255
    assert [coarse.names[i] for i in coarse.decode(colors)[0, :2]] == ["road", "car"]
    assert fine.level("camvid").names == coarse.names


def test_decode__unnamed_values_are_an_error_or_ignored() -> None:
    raw = RawValues(values={1: 0}, colors={(1, 1, 1): 0})
    lenient = RawValues(values={1: 0}, colors={(1, 1, 1): 0}, unmapped="ignore")
    values = np.array([[1, 9, 9, 8]], np.uint8)
    colors = np.array([[[1, 1, 1], [0, 0, 2]]], np.uint8)
    assert lenient.decode(values).tolist() == [[0, 255, 255, 255]]
    assert lenient.decode(colors).tolist() == [[0, 255]]
    with pytest.raises(ClassTableError) as caught:
        raw.decode(values)
    assert str(caught.value) == (
        "raw values that the class table does not name: 9 (2 pixels), 8 (1 pixels); name them in "
        "the table, or set its 'unmapped' to 'ignore'"
    )
    with pytest.raises(ClassTableError, match=r"\[0, 0, 2\] \(1 pixels\)"):
        raw.decode(colors)


def test_decode__other_kinds_of_arrays_are_refused() -> None:
    with pytest.raises(ClassTableError, match="is in colour, and the class table names raw values"):
        IDD.decode(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ClassTableError, match=r"not int64 \[2, 2\]"):
        IDD.decode(np.zeros((2, 2), np.int64))


def test_load__own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(MINE))
    table = load_class_table(str(tmp_path / "mine.json"))
    assert (table.names, table.ignore_index) == (["road", "car", "dog"], 255)
    assert table.classes[0].official == "carriageway"
    assert table.decode(np.array([[7, 0, 4, 255]], np.uint8)).tolist() == [[0, 1, 2, 255]]
    assert table.decode(np.array([[[9, 9, 9], [0, 0, 0]]], np.uint8)).tolist() == [[0, 255]]
    level = table.level("coarse")
    assert (level.of, level.names) == ((0, 1, 1), ["flat", "thing"])
    assert [info.color for info in level.classes] == [(1, 2, 3), (0, 0, 1)]


def test_load__todays_files_stay_readable(tmp_path: Path) -> None:
    plain = {"name": "two", "classes": [{"name": "a", "color": [1, 2, 3]}], "ignore_index": 9}
    (tmp_path / "two.json").write_text(json.dumps(plain))
    table = load_class_table(str(tmp_path / "two.json"))
    assert table == ClassTable(
        name="two", classes=(ClassInfo(name="a", color=(1, 2, 3)),), ignore_index=9
    )
    assert table.to_dict() == plain
    assert table.decode(np.array([[0, 9]], np.uint8)).tolist() == [[0, 9]]


def test_load__all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    broken = {
        "name": "bad",
        "colour": 1,
        "unmapped": "maybe",
        "classes": [
            {"name": "road", "color": [1, 2, 300], "values": [7, 256]},
            {"name": "car", "values": [7]},
            "dog",
        ],
        "hierarchy": [{"name": "coarse", "classes": [{"name": "flat", "members": ["rod"]}]}],
    }
    (tmp_path / "bad.json").write_text(json.dumps(broken))
    with pytest.raises(ClassTableError) as caught:
        load_class_table(str(tmp_path / "bad.json"))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/bad.json: class table 'bad' is not usable: ")
    for part in (
        "the table has unknown keys ['colour']; there are",
        "class 0 'road' has colour [1, 2, 300] (three integers, 0 to 255)",
        "class 1 lacks ['color']",
        "class 2 is 'dog', not an object",
        "class 0 'road' has raw value 256 (0 to 255, or a colour of three)",
        "raw value 7 is that of class 0 'road' and of class 1 'car'",
        "unmapped 'maybe' (error or ignore)",
        "'flat' of level 'coarse' has members that are no class: ['rod']",
        "level 'coarse' leaves out ['road', 'car', 'class 2']",
    ):
        assert part in message


@pytest.mark.parametrize("content", ["[]", "5", '{"classes": 5}', '{"classes": []}', "{"])
def test_load__no_table_at_all(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ClassTableError, match=r"bad\.json"):
        load_class_table(str(tmp_path / "bad.json"))


def test_load__unknown_name() -> None:
    with pytest.raises(ClassTableError) as caught:
        load_class_table("kitti")
    assert str(caught.value) == (
        f"unknown class table 'kitti': built in are {sorted(SIZES)}; your own is the path of an "
        "existing .json file"
    )


def test_table__repeated_fields_and_bad_parts_are_told() -> None:
    info = ClassInfo(name="a b", color=(0, 0, 0))
    twin = ClassInfo(name="A-B", color=(0, 0, 999))
    with pytest.raises(ClassTableError) as caught:
        ClassTable(name="t", classes=(info, twin), raw=RawValues(values={300: 7}, ignore_index=254))
    assert str(caught.value) == (
        "class table 't' is not usable: class 1 'A-B' has the field name of class 0; class 1 'A-B' "
        "has colour (0, 0, 999) (three integers, 0 to 255); the raw values ignore 254, the table "
        "ignores 255; raw value 300 (0 to 255, or three of them for a colour); raw value 300 is "
        "class 7 (0 to 1, or 255)"
    )
