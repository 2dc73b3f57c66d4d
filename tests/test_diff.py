"""`dinoidd diff`: two runs over the same images, against sums made with plain numpy."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import S3
from PIL import Image
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.classes import ClassInfo, ClassTable
from dinoidd.cli import main, progress
from dinoidd.diff import comparison as comparison_module
from dinoidd.diff import sheet as sheet_module
from dinoidd.diff.image import diff_masks
from dinoidd.metrics import confusion_matrix
from dinoidd.output.draw import draw_report
from dinoidd.output.mask import encode_mask

K = len(TABLE)


class Shifted(SyntheticOutput):
    """The same images, with the traffic light two pixels lower, and a rail track in every fifth."""

    def mask(self, image_id: int) -> np.ndarray:
        mask_HW = super().mask(image_id)
        if image_id % 10 == 0:
            return mask_HW  # equal
        changed = mask_HW.copy()
        changed[2:8][mask_HW[2:8] == 1] = 2
        changed[4:10, image_id % 20 : image_id % 20 + 3] = 1
        if image_id % 5 == 0:
            changed[-4 - image_id // 10 :] = 3
        return changed


@dataclass
class Runs:
    """Two runs whose manifests name the same files."""

    a: SyntheticOutput
    b: SyntheticOutput

    def masks(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        return self.a.mask(image_id), self.b.mask(image_id)

    @property
    def compared(self) -> list[int]:
        return sorted(set(range(self.a.images)) - set(self.a.errors) - set(self.b.errors))

    def matrix(self) -> np.ndarray:
        """Counted pixel by pixel, with no code of ours."""
        counts = np.zeros((K, K), np.int64)
        for image_id in self.compared:
            np.add.at(counts, tuple(m.ravel() for m in self.masks(image_id)), 1)
        return counts


def same_uris(b: SyntheticOutput, a: SyntheticOutput) -> None:
    """Let B's rows name A's images."""
    for image_id in range(b.images):
        b.edit(image_id, lambda row: row.update(uri=a.uri(row["image_id"])))


@pytest.fixture(autouse=True)
def no_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine they would come between the lines that are tested."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", float("inf"))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    a = SyntheticOutput(tmp_path / "one", images=40, per_file=16, errors={3: ("missing", "gone")})
    errors = {3: ("missing", "gone"), 7: ("truncated", "short")}
    b = Shifted(tmp_path / "two", images=40, per_file=32, errors=errors, fingerprint="b" * 64)
    same_uris(b, a)
    return Runs(a, b)


Diff = Callable[..., tuple[int, str, str]]


@pytest.fixture
def diff(runs: Runs, capsys: pytest.CaptureFixture[str]) -> Diff:
    def run(*options: object, a: object = None, b: object = None) -> tuple[int, str, str]:
        outputs = [str(a or runs.a.out), str(b or runs.b.out)]
        return main(["diff", *outputs, *map(str, options)]), *capsys.readouterr()

    return run


@pytest.fixture
def as_json(diff: Diff, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(**outputs: object) -> dict[str, Any]:
        assert diff("--json", tmp_path / "diff.json", **outputs)[0] == 0
        return json.loads((tmp_path / "diff.json").read_text())

    return run


def test_diff__pixels_and_confusion(runs, as_json) -> None:
    found, matrix = as_json(), runs.matrix()
    assert found["confusion"] == matrix.tolist()
    assert found["pixels"] == matrix.sum()
    assert found["equal_share"] == np.trace(matrix) / matrix.sum()
    assert found["images_compared"] == len(runs.compared) == 38
    assert found["a"]["model_fingerprint"] == "f" * 64
    assert found["b"] == {
        "uri": str(runs.b.out),
        "finished": True,
        "model_fingerprint": "b" * 64,
    }


def test_diff__each_image(runs, as_json) -> None:
    found = as_json()
    shares = {i: np.mean(np.equal(*runs.masks(i))) for i in runs.compared}
    assert {Path(e["uri"]).stem: e["equal_share"] for e in found["images"]} == {
        f"{i:04d}": share for i, share in shares.items()
    }
    values = np.array(list(shares.values()))
    assert found["equal_share_per_image"] == {
        "mean": pytest.approx(values.mean()),
        "median": pytest.approx(np.median(values)),
        "p05": pytest.approx(np.quantile(values, 0.05)),
        "least": values.min(),
        "equal_images": (values == 1).sum(),
    }
    worst = sorted((i for i in shares if shares[i] < 1), key=lambda i: (shares[i], i))[:20]
    assert [e["uri"] for e in found["most_different"]] == [runs.a.uri(i) for i in worst]


def test_diff__classes(runs, as_json) -> None:
    for index, entry in enumerate(as_json()["classes"]):
        in_a = [runs.masks(i)[0] == index for i in runs.compared]
        in_b = [runs.masks(i)[1] == index for i in runs.compared]
        both = np.logical_and(in_a, in_b).sum()
        assert entry == {
            "name": TABLE.names[index],
            "pixels_a": np.sum(in_a),
            "pixels_b": np.sum(in_b),
            "pixels_both": both,
            "lost": np.sum(in_a) - both,
            "gained": np.sum(in_b) - both,
            "iou": both / np.logical_or(in_a, in_b).sum(),
        }


def test_diff__changes(runs, as_json) -> None:
    changes, matrix = as_json()["changes"], runs.matrix()
    moved = {
        (TABLE.names[i], TABLE.names[j]): int(matrix[i, j])
        for i in range(K)
        for j in range(K)
        if i != j and matrix[i, j]
    }
    assert {(c["from"], c["to"]): c["pixels"] for c in changes} == moved
    assert [c["pixels"] for c in changes] == sorted(moved.values(), reverse=True)
    for c in changes:
        assert c["share"] == c["pixels"] / matrix.sum()
        assert c["share_of_class"] == c["pixels"] / matrix[TABLE.names.index(c["from"])].sum()


def test_diff__errors_and_images_of_one_run(runs, diff, as_json) -> None:
    runs.b.edit(5, lambda row: row.update(uri="s3://elsewhere/new.png"))
    runs.b.edit(9, lambda row: row["mask"].update(bytes=b"hello"))
    small = encode_mask(np.zeros((5, 6), np.uint8), TABLE)
    runs.b.edit(11, lambda row: row["mask"].update(bytes=small))
    found = as_json()
    assert found["images_left_out_named"] == {
        "only_in_a": [runs.a.uri(5)],
        "only_in_b": ["s3://elsewhere/new.png"],
        "error_in_b": [runs.a.uri(7)],
        "error_in_both": [runs.a.uri(3)],
        "broken_mask": [f"{runs.a.uri(9)} (the mask (5 bytes) is not a PNG)"],
        "other_size": [f"{runs.a.uri(11)} (32x24 in A, 6x5 in B)"],
    }
    assert found["images_left_out"] == dict.fromkeys(found["images_left_out_named"], 1)
    assert found["images_compared"] == len(found["images"]) == 35
    out = diff()[1]
    assert f"not compared: 1 only in A\n  {runs.a.uri(5)}\n" in out
    assert f"not compared: 1 with an error in both\n  {runs.a.uri(3)}\n" in out
    assert "not compared: 1 with a mask that cannot be read\n" in out


def test_diff__many_left_out_are_counted_and_some_named(tmp_path, runs, diff, as_json) -> None:
    a = SyntheticOutput(tmp_path / "few", images=4, errors={})
    for image_id in range(4):
        a.edit(image_id, lambda row: row.update(uri=runs.a.uri(row["image_id"])))
    found = as_json(a=a.out)
    assert found["images_left_out"] == {"only_in_b": 36, "error_in_b": 1}
    assert found["images_left_out_named"]["only_in_b"] == [runs.a.uri(i) for i in range(4, 24)]
    text = diff(a=a.out)[1]
    assert "not compared: 36 only in B\n" in text
    assert f"  {runs.a.uri(8)}\n  and 31 more\n" in text


def test_diff__other_order_and_repeated_addresses(runs, as_json) -> None:
    before = as_json()
    uris = {i: runs.a.uri(39 - i) for i in range(40)}
    masks = {i: runs.b.row(39 - i) for i in range(40)}
    for image_id in range(40):  # B has the images backwards
        runs.b.edit(
            image_id,
            lambda row: row.update(
                masks[row["image_id"]] | {"image_id": row["image_id"], "uri": uris[row["image_id"]]}
            ),
        )
    after = as_json()
    assert after["confusion"] == before["confusion"]
    assert [e["uri"] for e in after["images"]] == [e["uri"] for e in before["images"]]
    runs.b.edit(1, lambda row: row.update(uri=uris[0]))  # twice in B: the first counts
    assert as_json()["images_compared"] == before["images_compared"] - 1


def test_diff__text(runs, diff) -> None:
    status, out, err = diff()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"A  {runs.a.out} (model ffffffff)"
    assert lines[1] == f"B  {runs.b.out} (model bbbbbbbb)"
    matrix = runs.matrix()
    assert f"38 images compared, {matrix.sum():,} pixels" in lines
    share = f"equal pixels: {100 * np.trace(matrix) / matrix.sum():.2f} % of all; per image "
    assert any(line.startswith(share) for line in lines)
    assert "4 of 38 images are equal in every pixel" in lines
    table = [line.split("  ")[0] for line in lines[lines.index("") :]]
    assert set(TABLE.names) <= {name.strip() for name in table}
    assert any(line.startswith("traffic light → sky") for line in lines)


def test_diff__a_run_and_itself(runs, diff, tmp_path) -> None:
    status, out, _ = diff("--to", tmp_path / "x.png", b=runs.a.out)
    assert status == 0
    assert "equal pixels: 100.00 % of all" in out
    assert "39 of 39 images are equal in every pixel" in out
    assert "most frequent changes" not in out
    assert "in neither: rail track" in out
    assert Image.open(tmp_path / "x.png").format == "PNG"


def test_diff__other_classes_are_refused(runs, diff) -> None:
    road, light, sky, _ = TABLE.classes
    other = ClassTable(
        name="toy", classes=(road, light, sky, ClassInfo(name="car", color=(1, 2, 3)))
    )
    runs.b.errors = dict.fromkeys(range(runs.b.images), ("missing", "gone"))
    for start in range(0, 40, 32):
        rows = [{"image_id": i, "uri": "x", "status": "error"} for i in range(start, start + 8)]
        runs.b.write_part(start, rows, other)
    status, out, err = diff()
    assert (status, out) == (2, "")
    assert err == (
        "dinoidd diff: the runs have different classes, so their masks cannot be compared: A has "
        "'toy' (4), B has 'toy' (4); class 3 is 'rail track' (230, 150, 140) in A and 'car' "
        "(1, 2, 3) in B\n"
    )


def test_diff__nothing_in_common(runs, diff, tmp_path) -> None:
    other = SyntheticOutput(tmp_path / "other", images=3, errors={})
    status, out, err = diff(b=other.out)
    assert (status, out) == (2, "")
    assert err == (
        f"dinoidd diff: the runs have no image in common: A has {runs.a.uri(0)} and others, B has "
        f"{other.uri(0)} and others; images are matched by address\n"
    )


def test_diff__all_in_common_are_errors(tmp_path, capsys) -> None:
    errors = dict.fromkeys(range(3), ("missing", "gone"))
    run = SyntheticOutput(tmp_path / "x", images=3, errors=errors)
    arguments = ["diff", str(run.out), str(run.out)]
    arguments += ["--to", str(tmp_path / "x.png"), "--json", str(tmp_path / "x.json")]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.endswith("no image could be compared\n")
    assert err == f"{tmp_path}/x.png was not written: there is nothing to draw\n"
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["images"], found["equal_share"]) == ([], None)


def test_diff__unfinished_run(runs, diff) -> None:
    (runs.b.out / "_SUCCESS").unlink()
    runs.b.part(32).unlink()
    status, out, err = diff()
    assert status == 0
    assert "is not finished (no _SUCCESS): 32 of 40 images so far" in err
    assert "(model bbbbbbbb, not finished)" in out
    assert "not compared: 8 only in A" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "x.jpg"], "--to x.jpg: the picture is a PNG, name it .png"),
        (["--grid", "0x3"], "--grid '0x3' is not COLUMNSxROWS"),
        (["--json", "{tmp}/nowhere/x.json"], "nowhere/x.json cannot be written: No such file"),
        (["--to", "{tmp}/nowhere/x.png"], "nowhere/x.png cannot be written: No such file"),
    ],
)
def test_diff__user_errors(diff, tmp_path, options, message) -> None:
    status, out, err = diff(*(o.format(tmp=tmp_path) for o in options))
    assert (status, out) == (2, "")
    assert message in err
    assert not list(tmp_path.glob("*.partial"))


def test_diff__not_a_run(diff, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    status, _, err = diff(b=tmp_path / "empty")
    assert status == 2
    assert f"there is no run in {tmp_path}/empty" in err


def test_diff__damaged_file_leaves_no_json(runs, diff, tmp_path) -> None:
    part = runs.b.part(0)
    part.write_bytes(part.read_bytes()[:-200])
    before = set(tmp_path.iterdir())
    assert diff("--json", tmp_path / "x.json")[0] == 2
    assert set(tmp_path.iterdir()) == before


def test_diff__s3(runs, as_json, diff, s3: S3, tmp_path) -> None:
    bucket = s3.new_bucket()
    a, b = (r.upload(s3.client(), bucket, f"runs/{n}") for n, r in (("a", runs.a), ("b", runs.b)))
    options = ["--endpoint-url", s3.endpoint_url, "--json", tmp_path / "s3.json"]
    assert diff(*options, a=a, b=b)[0] == 0
    there, here = json.loads((tmp_path / "s3.json").read_text()), as_json()
    assert (there.pop("a")["uri"], there.pop("b")["uri"]) == (a, b)
    assert there == {k: v for k, v in here.items() if k not in ("a", "b")}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was handed to the drawing."""
    seen: dict[str, Any] = {}

    def draw(**parts: Any) -> Image.Image:
        seen.update(parts)
        return draw_report(**parts)

    monkeypatch.setattr(sheet_module, "draw_report", draw)
    return seen


def test_sheet__four_pictures_of_the_most_different(runs, diff, drawn, tmp_path) -> None:
    runs.a.write_inputs()
    assert diff("--to", tmp_path / "x.png", "--grid", "2x3")[0] == 0
    assert Image.open(tmp_path / "x.png").mode == "RGB"
    shares = {i: np.mean(np.equal(*runs.masks(i))) for i in runs.compared}
    worst = sorted(shares, key=lambda i: (shares[i], i))[:6]
    cells = drawn["cells"]
    assert [c.caption for c in cells[::4]] == [f"{i:04d}.png" for i in worst]
    assert [c.detail for c in cells[3::4]] == [f"{100 * (1 - shares[i]):.2f} %" for i in worst]
    assert drawn["layout"].columns == 8
    assert {s.name for s in drawn["legend"]} == set(TABLE.names)
    for number, image_id in enumerate(worst):
        for cell, mask_HW in zip(cells[4 * number + 1 :], runs.masks(image_id), strict=False):
            colors = {c for _, c in cell.left.getcolors()}
            assert colors == {TABLE.classes[i].color for i in np.unique(mask_HW)}


def test_sheet__images_of_one_name_are_told_apart(runs, diff, drawn, tmp_path) -> None:
    for run in (runs.a, runs.b):
        for image_id in range(run.images):
            name = f"s3://b/{image_id % 4}/same.jpg" if image_id < 4 else f"s3://b/{image_id}.jpg"
            run.edit(image_id, lambda row, name=name: row.update(uri=name))
    assert diff("--to", tmp_path / "x.png", "--grid", "5x8")[0] == 0
    captions = [cell.caption for cell in drawn["cells"][::4]]
    assert len(captions) == len(set(captions)) == len(runs.compared)
    assert {c for c in captions if "same" in c} == {f"{i}/same.jpg" for i in (0, 1, 2)}


def test_sheet__marks_what_differs(runs, diff, drawn, tmp_path) -> None:
    runs.a.write_inputs()
    diff("--to", tmp_path / "x.png", "--grid", "1x1")
    original, a, b, differ = (np.asarray(c.left).astype(int) for c in drawn["cells"])
    marked = (differ == sheet_module._CHANGED).all(axis=-1)
    changed = (a != b).any(axis=-1)
    assert original.shape == differ.shape
    assert 0 < changed.mean() < 0.9
    assert (marked == changed).mean() > 0.9  # they differ along edges, where it was made larger


def test_sheet__originals_that_cannot_be_read(runs, diff, drawn, tmp_path) -> None:
    assert diff("--to", tmp_path / "x.png", "--grid", "1x1")[0] == 0
    name = drawn["cells"][0].caption
    uri = str(runs.a.folder / "in" / name)
    assert drawn["cells"][0].left == f"missing: {uri} cannot be read: there is no such file"
    assert isinstance(drawn["cells"][3].left, Image.Image)


def test_diff_masks__is_the_confusion_matrix() -> None:
    draw = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        a = draw.integers(0, K, (30, 40), np.uint8)
        b = np.where(draw.random(a.shape) < share, draw.integers(0, K, a.shape), a).astype(np.uint8)
        image = diff_masks("x", encode_mask(a, TABLE), encode_mask(b, TABLE), K)
        np.testing.assert_array_equal(image.matrix, confusion_matrix(a, b, K))
        assert image.equal_share == np.mean(a == b)


def test_compare__memory_does_not_grow_with_images(runs, diff, monkeypatch) -> None:
    """Only a few batches are read ahead of what was compared."""
    monkeypatch.setattr(comparison_module, "_PAIRS_AT_ONCE", 4)
    read: list[int] = []
    lead: list[int] = []
    read_masks, add = comparison_module.read_masks, comparison_module.Comparison.add

    def counted(run, ids):
        read.extend(ids)
        return read_masks(run, ids)

    def watched(self, image) -> None:
        add(self, image)
        lead.append(len(read) // 2 - self.images)

    monkeypatch.setattr(comparison_module, "read_masks", counted)
    monkeypatch.setattr(comparison_module.Comparison, "add", watched)
    monkeypatch.setattr(comparison_module.os, "cpu_count", lambda: 1)
    assert diff()[0] == 0
    assert len(read) == 2 * 38
    assert max(lead) <= 4 * 3
