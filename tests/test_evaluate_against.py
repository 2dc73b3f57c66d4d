"""Two runs compared, and what is written and drawn."""

import csv
import json
import re

import numpy as np
import pytest
from evaluation_files import SmallSet, make_set, run, save, street, worse
from PIL import Image

from dinoidd.classes import IDD, ClassInfo, ClassTable
from dinoidd.cli import main
from dinoidd.evaluation.comparison import UNITS_NEEDED, FrameTallies, compare, verdict_text
from dinoidd.evaluation.comparison_picture import draw_comparison
from dinoidd.evaluation.frames import Frame, frame_of
from dinoidd.evaluation.text import _conclusion
from dinoidd.inspection.bar_chart import _VOID as VOID_OF_BAR_CHART
from dinoidd.metrics import confusion_matrix, tally
from dinoidd.output.confusion_picture import draw_confusion
from dinoidd.output.draw import MARGIN, VOID

DRIVES, FRAMES = 3, 8


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallSet:
    small = make_set(tmp_path_factory.mktemp("against"), DRIVES, FRAMES)
    for path in small.truth.rglob("*.png"):
        ids = np.array(Image.open(path))
        save(small.root / "bad" / path.relative_to(small.truth), worse(ids, 7, boxes=12))
    return small


def frames_of(name: str, tallies: np.ndarray) -> FrameTallies:
    frames = [Frame("d", str(i)) for i in range(len(tallies))]
    return FrameTallies(name=name, frames=frames, tallies=tallies)


def random_tallies(seed: int, quality: float, frames: int = 60) -> np.ndarray:
    """Two classes; each pixel is right with some chance, the second class equally in all runs."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, 2, (frames, 20, 20)).astype(np.uint8)
    chance = np.where(truth == 0, quality, 0.8)
    drawn = np.where(rng.random(truth.shape) < chance, truth, 2).astype(np.uint8)
    return np.stack(
        [tally(confusion_matrix(t, p, 2), 2) for t, p in zip(truth, drawn, strict=True)]
    )


def test_compare__tells_a_change_from_chance() -> None:
    ours, theirs = random_tallies(1, 0.85), random_tallies(2, 0.8)
    result = compare(frames_of("a", ours), frames_of("b", theirs), ["x", "y"], samples=500, seed=0)
    assert (result["better"], result["worse"]) == (["x"], [])
    x, y = result["classes"]
    assert x["p"] < 0.01 < 0.05 < y["p"]
    assert y["verdict"] == "no more than chance"
    assert x["interval"][0] < x["difference"] < x["interval"][1]
    assert x["here"] - x["there"] == x["difference"]
    turned = compare(frames_of("b", theirs), frames_of("a", ours), ["x", "y"], samples=500, seed=0)
    assert (turned["better"], turned["worse"]) == ([], ["x"])
    assert turned["classes"][0]["interval"] == [-end for end in x["interval"][::-1]]


def test_compare__is_rarely_fooled_by_runs_of_one_quality() -> None:
    fooled = 0
    for seed in range(60):
        pair = [frames_of(n, random_tallies(100 + 2 * seed + i, 0.8)) for i, n in enumerate("ab")]
        result = compare(*pair, ["x", "y"], samples=200, seed=seed)
        fooled += len(result["better"]) + len(result["worse"])
    assert fooled <= 15  # of 120 at 5 %: 6 are expected


def test_compare__few_frames_and_partial_overlap() -> None:
    ours, theirs = random_tallies(1, 0.9, 12), random_tallies(2, 0.5, 12)
    result = compare(
        frames_of("a", ours[:9]), frames_of("b", theirs), ["x", "y"], samples=200, seed=0
    )
    assert (result["frames"], result["only_here"], result["only_there"]) == (9, 0, 3)
    assert [entry["verdict"] for entry in result["classes"]] == ["not judged"] * 2
    assert (result["frames_needed"], result["not_judged"]) == (10, ["x", "y"])
    assert verdict_text("not judged", 9) == "not judged: 9 frames, at least 10 are needed"
    assert verdict_text("not judged", 1) == "not judged: 1 frame, at least 10 are needed"
    assert verdict_text("better", 9) == "better"


def test_evaluate__against_few_frames_claims_nothing(tmp_path, capsys) -> None:
    few = make_set(tmp_path, drives=1, frames=3)
    for path in few.truth.rglob("*.png"):
        bad = worse(np.array(Image.open(path)), 7, boxes=12)
        save(tmp_path / "bad" / path.relative_to(few.truth), bad)
    few.evaluate("--resolution", "native", "--against", tmp_path / "bad")
    text = capsys.readouterr().out
    assert text.endswith("\nnot judged: 3 frames, at least 10 are needed\n")
    assert "no class" not in text
    assert "more than chance" not in text
    assert re.search(r"\nroad .*\] +not judged: 3 frames, at least 10 are needed\n", text)
    assert text.count("; intervals of fewer than 10 frames are rough]\n") == 2  # both intervals


def test_text__rare_classes_are_not_judged_and_not_counted() -> None:
    ours, theirs = random_tallies(1, 0.95, 12), random_tallies(2, 0.5, 12)
    for tallies in (ours, theirs):
        tallies[9:, 1] = 0  # y is in nine frames alone
    rare = compare(frames_of("a", ours), frames_of("b", theirs), ["x", "y"], samples=200, seed=0)
    assert list(_conclusion(rare)) == [
        "better by more than chance: x",
        "worse by more than chance: no class",
        "(of 1 classes about 0.1 would seem changed by chance alone)",
        "not judged, in fewer than 10 frames: y",
    ]
    for tallies in (ours, theirs):
        tallies[:9, 0] = 0
    none = compare(frames_of("a", ours), frames_of("b", theirs), ["x", "y"], samples=200, seed=0)
    assert list(_conclusion(none)) == ["not judged, in fewer than 10 frames: x, y"]


def test_draw_comparison__has_room_for_what_is_not_judged() -> None:
    runs = [frames_of(n, random_tallies(i, 0.5 + i / 9, 9)) for i, n in enumerate("ab")]
    few = compare(*runs, ["x", "y"], samples=200, seed=0) | {"other": "s3://long/" * 99}
    picture = np.asarray(draw_comparison(few).convert("L"))
    words = picture[120:, -300 - MARGIN :]
    assert (words[:, :-MARGIN] < 128).any()  # to the end of the row, and not beyond
    assert (picture[:, -MARGIN + 2 :] == 255).all()


def test_evaluate__against_help_tells_the_frames_needed(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"a change is judged where at least {UNITS_NEEDED} frames show it" in told


def test_evaluate__intervals_of_few_drives_are_rough(small: SmallSet, capsys) -> None:
    small.evaluate()
    told = capsys.readouterr().out
    drawn = "3 drives drawn anew 1,000 times, seed 0"
    assert f"[95% intervals: {drawn}; intervals of fewer than 10 drives are rough]\n" in told
    assert "\ndrives, worst first; intervals of fewer than 10 frames are rough\n" in told


def test_evaluate__intervals_of_ten_frames_are_not_called_rough(tmp_path, capsys) -> None:
    make_set(tmp_path, drives=1, frames=10).evaluate()
    assert "rough" not in capsys.readouterr().out


def test_evaluate__against_json_and_against_predictions_agree(small: SmallSet) -> None:
    base = ("--data", small.root, "--resolution", "native")
    run(*base, "--predictions", small.root / "bad", to=small.root)
    earlier = small.root / "earlier.json"
    (small.root / "result.json").rename(earlier)
    (small.root / "result.counts.parquet").rename(small.root / "earlier.counts.parquet")
    one = small.evaluate("--resolution", "native", "--against", earlier)["comparison"]
    two = small.evaluate("--resolution", "native", "--against", small.root / "bad")["comparison"]
    assert one.pop("other") == str(earlier)
    assert two.pop("other") == str(small.root / "bad")
    assert one == two
    assert one["mean_iou"]["verdict"] == "better"
    assert one["frames"] == DRIVES * FRAMES
    # The better run draws classes that are never labelled: its own mean suffers, the comparison must not.
    assert one["mean_iou"]["classes"] < 26
    verdicts = {entry["name"]: entry["verdict"] for entry in one["classes"]}
    assert verdicts["rail track"] == "predicted by one run, never labelled"
    reseeded = small.evaluate("--resolution", "native", "--against", earlier, "--seed", 5)
    assert reseeded["comparison"]["mean_iou"]["interval"] != one["mean_iou"]["interval"]


def test_evaluate__against_itself(small: SmallSet) -> None:
    comparison = small.evaluate("--against", small.pred)["comparison"]
    assert {entry["verdict"] for entry in comparison["classes"]} == {"the same"}
    assert comparison["mean_iou"]["difference"] == 0


def test_evaluate__against_lists_changed_classes_first(small: SmallSet, capsys) -> None:
    result = small.evaluate("--resolution", "native", "--against", small.root / "bad")
    lines = capsys.readouterr().out.partition("\npixel accuracy ")[2].partition("by more than")[0]
    rows = lines.rpartition("\npixel accuracy ")[2].splitlines()[1:-1]
    verdicts = {entry["name"]: entry["verdict"] for entry in result["comparison"]["classes"]}
    listed = [verdicts[row.partition("  ")[0]] for row in rows]
    changed = [verdict in ("better", "worse") for verdict in listed]
    quiet = [verdict in ("the same", "absent") for verdict in listed]
    assert len(listed) == 26
    assert any(changed)
    assert any(quiet)
    assert changed == sorted(changed, reverse=True)
    assert quiet == sorted(quiet)


def test_evaluate__against_other_settings(small: SmallSet, capsys) -> None:
    small.evaluate("--resolution", "240")
    result = small.root / "result.json"
    where = ["--data", str(small.root), "--predictions", str(small.pred)]
    assert main(["evaluate", *where, "--against", str(result)]) == 2
    assert "was evaluated with other settings: resolution 240 (now 720)" in capsys.readouterr().err
    (small.root / "other.json").write_text("{}")
    assert main(["evaluate", *where, "--against", str(small.root / "other.json")]) == 2
    assert "is not an evaluation" in capsys.readouterr().err
    (small.root / "result.counts.parquet").unlink()
    args = [*where, "--against", str(result), "--resolution", "240"]
    assert main(["evaluate", *args]) == 2
    assert "result.counts.parquet" in capsys.readouterr().err


def test_evaluate__report_folder(small: SmallSet, capsys) -> None:
    to = small.root / "report"
    result = small.evaluate("--report", to, "--against", small.root / "bad")
    assert sorted(path.name for path in to.iterdir()) == [
        "classes.csv",
        "comparison.csv",
        "comparison.png",
        "confusion.png",
        "drives.csv",
        "evaluation.counts.parquet",
        "evaluation.json",
        "report.txt",
    ]
    assert json.loads((to / "evaluation.json").read_text()) == result
    assert (to / "report.txt").read_text() == capsys.readouterr().out
    rows = list(csv.DictReader((to / "classes.csv").open()))
    assert len(rows) == 26 + 16 + 7 + 7
    road = result["levels"]["level3"]["classes"][0]
    assert float(rows[0]["iou"]) == road["iou"]
    assert float(rows[0]["boundary_iou"]) == result["boundary"]["classes"]["road"]
    drives = list(csv.DictReader((to / "drives.csv").open()))
    assert [row["drive"] for row in drives] == ["0", "1", "2"]
    assert Image.open(to / "comparison.png").size[0] > 1000


def test_draw_confusion__shades_follow_shares() -> None:
    matrix = np.zeros((27, 27), int)
    matrix[0, 0] = matrix[1, 2] = 100
    matrix[2, 2], matrix[2, 26] = 50, 50
    picture = np.asarray(draw_confusion(matrix, IDD, "title", "subtitle"))
    dark = (picture == (9, 33, 87)).all(-1)
    right, below = picture.shape[1] - 40, picture.shape[0] - 40

    def share_dark(row: int, column: int) -> float:
        y, x = below - (26 - row) * 46, right - (27 - column) * 46
        return dark[y : y + 44, x : x + 44].mean()

    assert share_dark(0, 0) > 0.7
    assert share_dark(1, 2) > 0.7
    assert share_dark(0, 1) == share_dark(2, 2) == share_dark(3, 3) == 0


def test_draw_confusion__void_is_grey_as_in_other_pictures() -> None:
    assert VOID == VOID_OF_BAR_CHART
    picture = np.asarray(draw_confusion(np.eye(27, dtype=int), IDD, "title", "subtitle"))
    last_column = picture[:, picture.shape[1] - MARGIN - 46 : -MARGIN]
    assert (last_column == VOID).all(-1).sum() == 16 * 16
    assert not (last_column == (0, 0, 0)).all(-1).any()


@pytest.mark.parametrize("classes", [2, 26])
def test_draw_confusion__axes_are_named_in_their_middle(classes: int) -> None:
    infos = tuple(ClassInfo(name=f"class {i}", color=(i, i, i)) for i in range(classes))
    table = ClassTable(name="some", classes=infos)
    picture = draw_confusion(
        np.eye(classes + 1, dtype=int), table, "a long title " * 3, "absent " * 99
    )
    dark = np.asarray(picture.convert("L")) < 180
    top, below = picture.height - MARGIN - classes * 46, picture.height - MARGIN
    rows = np.flatnonzero(dark[top:, MARGIN - 8 : MARGIN + 16].any(1)) + top
    if classes > 2:  # two rows are shorter than the words
        assert (rows[0] + rows[-1]) / 2 == pytest.approx((top + below) / 2, abs=4)
    assert 90 < rows[-1] - rows[0] < 140
    assert not dark[:, -MARGIN + 2 :].any()  # the title has room, the words below it are cut


def test_draw_confusion__many_classes() -> None:
    infos = tuple(ClassInfo(name=f"class {i}", color=(i, i, i)) for i in range(150))
    matrix = np.eye(151, dtype=int)
    picture = draw_confusion(matrix, ClassTable(name="many", classes=infos), "title", "subtitle")
    assert max(picture.size) < 4000


@pytest.mark.parametrize(
    ("uri", "frame"),
    [
        ("/x/val/12/000001_gtFine_labellevel3Ids.png", Frame("12", "000001")),
        ("s3://b/val/12/frame7_leftImg8bit.jpg", Frame("12", "frame7")),
        ("/x/a b/0001TP_006690_L.png", Frame("a b", "0001TP_006690")),
        ("/x/7/000001_leftImg8bit_pred.png", Frame("7", "000001")),
        ("/x/7/plain", Frame("7", "plain")),
        ("/x/day/cam0/plain", Frame("day/cam0", "plain")),
    ],
)
def test_frame_of__names(uri: str, frame: Frame) -> None:
    assert frame_of(uri, uri.rpartition("/" + (frame.drive or frame.name))[0]) == frame


def test_frame_of__folders_above_the_root_are_no_drives() -> None:
    frame = frame_of("/x/val/0016E5_07965.png", "/x/val")
    assert frame == Frame("", "0016E5_07965")
    assert frame.sequence == "0016E5"
    assert str(street(0).dtype) == "uint8"
