"""Label images and predictions in another encoding than was set are told, whatever it is."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_files import OFFICIAL, SmallSet, make_set, save, street
from PIL import Image

from dinoidd.classes import BUILT_IN
from dinoidd.classes.idd_labels import IDD_LABELS

LABELS = list(IDD_LABELS.values())
LEVELS = ("level3Id", "level2Id", "level1Id")


def in_road255(path: Path) -> None:
    ids = np.array(Image.open(path))
    void = ids == 255
    ids[ids == 0] = 255
    ids[void] = 24
    save(path, ids)


def test_evaluate__labels_in_two_encodings(tmp_path: Path, capsys) -> None:
    small = make_set(tmp_path)
    for path in (small.truth / "1").iterdir():
        in_road255(path)
    first = small.evaluate(rc=1)["problems"][0]
    assert (first["file"], first["counted"]) == (str(small.truth), True)
    assert first["what"] == (
        "0 (road) occurs in 3 of 6 label images, but 3 have no 0 and much 255: some of them may be in "
        "`road255`; the two must not be mixed"
    )
    head = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    warning = f"WARNING       the figures may mean nothing: {small.truth}: {first['what']}"
    assert [line for line in head if line.startswith("WARNING")] == [warning]


def test_evaluate__too_few_labels_to_decide_are_told(tmp_path: Path, capsys) -> None:
    small = make_set(tmp_path)
    for path in small.root.rglob("*.png"):
        save(path, np.full((36, 64), 25, np.uint8))
    result = small.evaluate()
    note = (
        "0 occurs in none of 6 label images, and 255 in 0, covering much of 0: too little to tell "
        "`official` from `road255`; they were read as `official`"
    )
    assert (result["notes"], result["problems"]) == ([note], [])
    assert f"note: {note}" in capsys.readouterr().out


def many(root: Path, values: list[int], frames: int) -> SmallSet:
    small = SmallSet(root)
    for i in range(frames):
        ids = np.resize(np.array(values, np.uint8), (36, 64))
        save(small.truth / "0" / f"{i}_{OFFICIAL}", ids)
        save(small.pred / "0" / f"{i}_{OFFICIAL}", np.where(ids == 255, 0, ids))
    return small


def test_evaluate__many_labels_that_fit_both_are_a_problem(tmp_path: Path) -> None:
    (problem,) = many(tmp_path, [9, 22, 25], 20).evaluate(rc=1)["problems"]
    assert problem["what"].endswith("too little to tell `official` from `road255`")


@pytest.mark.parametrize(("frames", "told"), [(19, False), (20, True)])
def test_evaluate__cs_train_ids_under_the_name_of_level3(
    tmp_path: Path, frames: int, told: bool
) -> None:
    small = many(tmp_path, [*range(19), 255], frames)
    problems = small.evaluate(rc=int(told))["problems"]
    assert [p["what"] for p in problems] == [
        "0 (road) occurs in 20 of 20 label images, as it does in the official encoding alone; no value "
        "above 18 but 255 occurs in 20 label images: are these csTrainId, level2Id or level1Id label "
        "images under a wrong name, or another data set's (--classes camvid, cityscapes, ...)?"
    ] * told


def test_evaluate__predictions_in_road255(tmp_path: Path) -> None:
    small = make_set(tmp_path)
    for path in small.pred.rglob("*.png"):
        in_road255(path)
    (problem,) = small.evaluate(rc=1)["problems"]
    assert (problem["file"], problem["counted"]) == (str(small.pred), True)
    assert problem["what"] == (
        "0 (road) is predicted in none of 6 frames, and 255 covers much of 6: in predictions road is "
        "0, and 255 counts as void"
    )


def test_evaluate__one_bit_void_is_no_parking(tmp_path: Path) -> None:
    small = make_set(tmp_path)
    black_and_white = np.where(street(0) > 20, np.uint8(255), np.uint8(0))
    for path in small.truth.rglob("*.png"):
        Image.fromarray(black_and_white).convert("1").save(path)
    result = small.evaluate("--resolution", "native")
    rows = np.array(result["confusion"]["matrix"]).sum(1)
    assert {i: n for i, n in enumerate(rows.tolist()) if n} == {
        0: 6 * int((black_and_white == 0).sum()),
        26: 6 * int((black_and_white == 255).sum()),
    }


def plain_figures(
    matrix: list[list[int]], groups: list[list[int]], void_counts: bool
) -> list[float | None]:
    """The IoUs of groups of classes by loops over the pixels' counts, as the official script sums."""
    void = len(matrix) - 1
    result: list[float | None] = []
    for group in groups:
        hit = missed = false = 0
        for truth in range(void + 1):
            for drawn in range(void + 1):
                count = matrix[truth][drawn]
                if truth in group and drawn in group:
                    hit += count
                elif truth in group and (drawn != void or void_counts):
                    missed += count
                elif drawn in group and truth != void:
                    false += count
        total = hit + missed + false
        result.append(hit / total if total else None)
    return result


def test_evaluate__agrees_with_a_plain_computation(tmp_path: Path) -> None:
    small = make_set(tmp_path, frames=2)
    drawn = small.drawn("0", "000000")
    ids = np.array(Image.open(drawn))
    ids[3:9, 5:20] = 255  # predicted as void
    save(drawn, ids)
    matrix = [[0] * 27 for _ in range(27)]
    for path in small.truth.rglob("*.png"):
        truth = np.array(Image.open(path)).tolist()
        mask = np.array(Image.open(small.pred / path.relative_to(small.truth))).tolist()
        for truth_row, mask_row in zip(truth, mask, strict=True):
            for a, b in zip(truth_row, mask_row, strict=True):
                matrix[min(a, 26)][min(b, 26)] += 1
    result = small.evaluate("--resolution", "native")
    assert result["confusion"]["matrix"] == matrix
    of = {name: sorted({label.value(name) for label in LABELS} - {255}) for name in LEVELS}
    for name in LEVELS:
        groups = [
            sorted({x.level3 for x in LABELS if x.value(name) == i and x.level3 < 255})
            for i in of[name]
        ]
        expected = plain_figures(matrix, groups, void_counts=name == "level3Id")
        level = result["levels"][name.removesuffix("Id")]
        assert [entry["iou"] for entry in level["classes"]] == pytest.approx(expected, abs=1e-12)
        present = [iou for iou in expected if iou is not None]
        assert level["mean_iou"] == pytest.approx(sum(present) / len(present), abs=1e-12)
    labelled = sum(sum(row) for row in matrix[:26])
    right = sum(matrix[i][i] for i in range(26))
    assert result["levels"]["level3"]["pixel_accuracy"] == pytest.approx(
        right / labelled, abs=1e-12
    )
    for i, entry in enumerate(result["levels"]["level3"]["classes"]):
        predicted = sum(matrix[t][i] for t in range(26))
        if predicted:
            assert entry["precision"] == pytest.approx(matrix[i][i] / predicted, abs=1e-12)
        if sum(matrix[i]):
            assert entry["recall"] == pytest.approx(matrix[i][i] / sum(matrix[i]), abs=1e-12)
    assert BUILT_IN["idd"].names == [
        entry["name"] for entry in result["levels"]["level3"]["classes"]
    ]
