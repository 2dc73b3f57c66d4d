"""`dinoidd data labels`: the official tool's images, resuming, and broken polygon files."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinoidd.cli import main
from dinoidd.data.labels import draw_label_images
from dinoidd.data.polygon_files import find_polygon_files, label_path
from dinoidd.data.polygons import PolygonError, draw_labels, parse_annotation, read_annotation
from dinoidd.data.processes import map_in_processes
from dinoidd.errors import ConfigError, InputError

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
OFFICIAL = Path(__file__).parent / "fixtures" / "idd_polygons"
SQUARE = [[1, 1], [6, 1], [6, 6], [1, 6]]


def annotation(*objects: dict[str, Any], size: tuple[Any, Any] = (8, 8)) -> dict[str, Any]:
    return {"imgWidth": size[0], "imgHeight": size[1], "objects": list(objects)}


def write(root: Path, name: str, content: dict[str, Any] | str) -> Path:
    path = root / "gtFine/train/0" / f"{name}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def drawn(*objects: dict[str, Any], encoding: str = "level3Id") -> np.ndarray:
    return np.asarray(draw_labels(parse_annotation(annotation(*objects)), encoding))


@pytest.mark.parametrize("encoding", ["level3Id", "level1Id", "id", "csTrainId"])
def test_labels__are_those_of_the_official_tool(tmp_path: Path, encoding: str) -> None:
    info = draw_label_images(OFFICIAL, encoding=encoding, out=tmp_path, workers=1)
    expected = sorted(OFFICIAL.rglob(f"*_gtFine_label{encoding}s.png"))
    assert (info.drawn, info.failed, len(expected)) == (4, 0, 4)
    for path in expected:
        ours = tmp_path / path.relative_to(OFFICIAL)
        with Image.open(path) as theirs, Image.open(ours) as image:
            assert (image.mode, image.size) == (theirs.mode, theirs.size)
            np.testing.assert_array_equal(np.asarray(image), np.asarray(theirs))


def test_labels__level2_sums_up_level3(tmp_path: Path) -> None:
    from dinoidd.classes import IDD

    level2 = np.array([*IDD.level("level2").of] + [255] * 230, np.uint8)
    draw_label_images(OFFICIAL, encoding="level2Id", out=tmp_path, workers=1)
    for path in OFFICIAL.rglob("*_gtFine_labellevel3Ids.png"):
        ours = tmp_path / str(path.relative_to(OFFICIAL)).replace("level3Ids", "level2Ids")
        expected = level2[np.asarray(Image.open(path))]
        np.testing.assert_array_equal(np.asarray(Image.open(ours)), expected)


def test_labels__colours_are_those_of_the_ids(tmp_path: Path) -> None:
    from dinoidd.classes.idd_labels import IDD_LABELS

    colors = np.array([label.color for label in IDD_LABELS.values()], np.uint8)
    draw_label_images(OFFICIAL, encoding="color", out=tmp_path, workers=1)
    for path in OFFICIAL.rglob("*_gtFine_labelids.png"):
        ours = tmp_path / str(path.relative_to(OFFICIAL)).replace("labelids", "labelColors")
        pixels = np.asarray(Image.open(ours))
        np.testing.assert_array_equal(pixels[..., :3], colors[np.asarray(Image.open(path))])
        assert pixels.shape[2] == 4
        assert pixels[..., 3].min() == 255


def test_draw__later_objects_cover_earlier_ones() -> None:
    sky = {"label": "sky", "polygon": [[0, 0], [7, 0], [7, 7], [0, 7]]}
    image = drawn(sky, {"label": "cargroup", "polygon": SQUARE})
    assert image[3, 3] == 9
    assert image[0, 0] == 25
    assert drawn({"label": "car", "polygon": SQUARE})[0, 0] == 255


@pytest.mark.parametrize(
    "skipped",
    [
        {"label": "nonsense", "polygon": SQUARE, "deleted": 1},
        {"label": "car", "polygon": [[0, 0], [7, 7]]},
        {"label": "nonsense", "polygon": []},
    ],
)
def test_draw__deleted_and_short_outlines_are_skipped(skipped: dict[str, Any]) -> None:
    assert (drawn(skipped) == 255).all()


def test_parse__all_faults_of_a_file_are_told() -> None:
    content = annotation(
        {"label": "cow", "polygon": SQUARE},
        {"label": "car", "polygon": [[0, 0], [1, "x"], [2, 2]]},
        {"label": "car", "polygon": [[0, 0], [1, float("nan")], [2, 2]]},
        5,  # type: ignore[arg-type]
        size=(0, "9"),
    )
    with pytest.raises(PolygonError) as caught:
        parse_annotation(content)
    assert str(caught.value) == (
        "has imgWidth 0 and imgHeight '9': two positive integers are needed; object 0 has the "
        "unknown label 'cow': give it one of IDD's labels, or set 'deleted': 1; object 1 ('car') has a "
        "polygon that is no list of [x, y]; object 2 ('car') has a polygon that is no "
        "list of [x, y]; object 3 is 5, not an object"
    )
    with pytest.raises(PolygonError, match="more than 268,435,456 pixels"):
        parse_annotation(annotation(size=(10**6, 10**6)))


def test_labels__a_second_call_draws_only_what_changed(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, f"{i}", annotation({"label": "car", "polygon": SQUARE})) for i in "abc"
    ]
    assert draw_label_images(tmp_path, workers=1).drawn == 3
    images = [label_path(path, "level3Id") for path in paths]
    before = [image.read_bytes() for image in images]
    write(tmp_path, "b", annotation({"label": "bus", "polygon": SQUARE}))
    images[2].write_bytes(before[2][:-5])  # cut off, when a disk was full
    info = draw_label_images(tmp_path, workers=1)
    assert (info.drawn, info.there) == (2, 1)
    assert np.asarray(Image.open(images[1]))[3, 3] == 11
    assert [images[0].read_bytes(), images[2].read_bytes()] == [before[0], before[2]]
    info = draw_label_images(tmp_path, workers=1, overwrite=True)
    assert (info.drawn, info.there) == (3, 0)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("age", [-(10**9), 0, 10**9])  # ns, against the polygons
def test_labels__images_of_another_tool_stay(tmp_path: Path, age: int) -> None:
    path = write(tmp_path, "a", annotation())
    image = label_path(path, "level3Id")
    Image.new("L", (8, 8), 7).save(image)
    time_ns = path.stat().st_mtime_ns + age
    os.utime(image, ns=(time_ns, time_ns))
    before = image.read_bytes()
    for _ in range(2):
        info = draw_label_images(tmp_path, workers=1)
        assert (info.drawn, info.there, info.foreign) == (0, 0, 1)
        assert info.foreign_examples == [str(image)]
        assert image.read_bytes() == before
    assert draw_label_images(tmp_path, workers=1, overwrite=True).drawn == 1
    assert draw_label_images(tmp_path, workers=1).there == 1


def test_labels__another_tools_image_of_the_same_polygons_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a", annotation({"label": "car", "polygon": SQUARE}))
    image = label_path(path, "level3Id")
    draw_labels(read_annotation(path), "level3Id").save(image, compress_level=0)
    before = image.read_bytes()
    assert draw_label_images(tmp_path, workers=1).there == 1
    write(tmp_path, "a", annotation({"label": "bus", "polygon": SQUARE}))
    assert draw_label_images(tmp_path, workers=1).foreign == 1
    assert image.read_bytes() == before


def test_labels__what_was_changed_by_hand_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "a", annotation({"label": "car", "polygon": SQUARE}))
    draw_label_images(tmp_path, workers=1)
    Image.new("L", (8, 8), 3).save(label_path(path, "level3Id"))
    assert draw_label_images(tmp_path, workers=1).foreign == 1


def test_labels__a_copied_data_set_is_known_by_its_digests(tmp_path: Path) -> None:
    write(tmp_path / "a", "x", annotation({"label": "car", "polygon": SQUARE}))
    draw_label_images(tmp_path / "a", workers=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # new times
    write(tmp_path / "b", "x", annotation({"label": "bus", "polygon": SQUARE}))
    assert draw_label_images(tmp_path / "b", workers=1).drawn == 1


def test_labels__a_torn_record_overwrites_nothing(tmp_path: Path) -> None:
    paths = [write(tmp_path, n, annotation({"label": "car", "polygon": SQUARE})) for n in "ab"]
    draw_label_images(tmp_path, workers=1)
    record = paths[0].with_name(".dinoidd_labels")
    record.write_bytes(record.read_bytes()[:-30])
    assert draw_label_images(tmp_path, workers=1).there == 2
    record.unlink()
    write(tmp_path, "a", annotation({"label": "bus", "polygon": SQUARE}))
    info = draw_label_images(tmp_path, workers=1)
    assert (info.there, info.foreign) == (1, 1)


def test_cli__images_of_another_tool_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = label_path(write(tmp_path, "a", annotation()), "level3Id")
    Image.new("L", (8, 8), 7).save(image)
    assert main(["data", "labels", "--root", str(tmp_path), "--workers", "1"]) == 1
    out, err = capsys.readouterr()
    assert "\nforeign   1\n" in out
    assert err == (
        "1 label image was left alone: it differs from what the polygons give, and another tool made or "
        f"changed it: {image}; --overwrite draws it anew, --out writes to another folder\n"
    )
    command = ["data", "labels", "--root", str(tmp_path), "--workers", "1", "--overwrite"]
    assert main(command) == 0


def test_cli__broken_files_are_told_and_do_not_stop_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = annotation({"label": "car", "polygon": SQUARE})
    write(tmp_path, "a", "{")
    write(tmp_path, "b", good)
    cow = write(tmp_path, "c", annotation({"label": "cow", "polygon": SQUARE}))
    write(tmp_path, "d", good)
    assert main(["data", "labels", "--root", str(tmp_path), "--workers", "1", "--json"]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["drawn"], told["failed"]) == (2, 2)
    what = "object 0 has the unknown label 'cow': give it one of IDD's labels, or set 'deleted': 1"
    assert told["failures"][str(cow)] == what
    assert f"{cow}: {what}\n" in err
    assert "a_gtFine_polygons.json: is not JSON: " in err
    assert err.endswith("2 polygon files could not be drawn\n")
    write(tmp_path, "a", good)
    write(tmp_path, "c", good)
    assert main(["data", "labels", "--root", str(tmp_path), "--workers", "1"]) == 0
    assert "there     2" in capsys.readouterr().out


def test_cli__wrong_places_and_options_end_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "labels", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"dinoidd data: {tmp_path} has no folder 'gtFine': name the folder that holds it\n"
    )
    (tmp_path / "gtFine").mkdir()
    assert main(["data", "labels", "--root", str(tmp_path)]) == 2
    assert "has no polygon files (names end in '_gtFine_polygons.json')" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--encoding level9Id: there are level3Id, "):
        draw_label_images(tmp_path, encoding="level9Id")
    with pytest.raises(InputError, match="is not a local folder"):
        list(find_polygon_files("s3://bucket/x"))


def test_labels__workers_change_no_byte(tmp_path: Path) -> None:
    for i in range(20):
        points = [[x + i / 8, y] for x, y in SQUARE]
        write(tmp_path, f"{i:02d}", annotation({"label": "car", "polygon": points}))
    shutil.copytree(tmp_path / "gtFine", tmp_path / "two" / "gtFine")
    draw_label_images(tmp_path / "two", out=tmp_path / "out2", workers=2)
    draw_label_images(tmp_path / "two", out=tmp_path / "out1", workers=1)
    images = sorted((tmp_path / "out1").rglob("*.png"))
    assert len(images) == 20
    for image in images:
        other = tmp_path / "out2" / image.relative_to(tmp_path / "out1")
        assert image.read_bytes() == other.read_bytes()


def test_map_in_processes__takes_items_only_as_they_are_needed() -> None:
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield i

    results = map_in_processes(abs, items(), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 100
    results.close()  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_map_in_processes__processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from dinoidd.data.processes import map_in_processes\n"
        "if __name__ == '__main__':\n"
        "    for _ in map_in_processes(time.sleep, [0.2] * 500, workers=2):\n"
        "        print('one', flush=True)\n"
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        children = children_of(parent.pid)
        parent.kill()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(runs(child) for child in children):
        assert time.monotonic() < deadline, "orphans are left"
        time.sleep(0.1)


def runs(pid: str) -> bool:
    """Whether it is neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[str]:
    """Process ids."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        if parent == str(pid):
            found.append(path.parent.name)
    return found


def test_parse__a_coordinate_beyond_all_floats() -> None:
    corner = {"label": "car", "polygon": [[1, 1], [10**400, 1], [float("inf"), float("nan")]]}
    with pytest.raises(PolygonError, match=r"has a polygon that is no list of \[x, y\]"):
        parse_annotation(annotation(corner))


@pytest.mark.parametrize("overwrite", [False, True])
def test_labels__a_folder_in_an_images_place_is_that_files_failure(
    tmp_path: Path, overwrite: bool
) -> None:
    car = {"label": "car", "polygon": SQUARE}
    first, second = (write(tmp_path, name, annotation(car)) for name in "ab")
    label_path(first, "level3Id").mkdir()
    info = draw_label_images(tmp_path, workers=1, overwrite=overwrite)
    assert (info.drawn, info.failed) == (1, 1)
    assert info.failures == {
        str(first): f"its label image {label_path(first, 'level3Id')} is there and cannot be read: "
        "Is a directory"
    }
    assert label_path(second, "level3Id").is_file()


def test_labels__links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "a", annotation({"label": "car", "polygon": SQUARE}))
    (tmp_path / "gtFine/train/0/again").symlink_to(tmp_path / "gtFine/train")
    elsewhere = tmp_path / "elsewhere" / "7"
    elsewhere.mkdir(parents=True)
    (elsewhere / "b_gtFine_polygons.json").write_text(json.dumps(annotation()))
    (tmp_path / "gtFine/val").symlink_to(tmp_path / "elsewhere")
    found = [str(path.relative_to(tmp_path)) for path in find_polygon_files(tmp_path)]
    assert found == [
        "gtFine/train/0/a_gtFine_polygons.json",
        "gtFine/val/7/b_gtFine_polygons.json",
    ]


def test_labels__an_image_whose_record_is_lost_is_foreign_once_its_polygons_change(
    tmp_path: Path,
) -> None:
    write(tmp_path, "a", annotation({"label": "car", "polygon": SQUARE}))
    draw_label_images(tmp_path, workers=1)
    (tmp_path / "gtFine/train/0/.dinoidd_labels").unlink()
    write(tmp_path, "a", annotation({"label": "bus", "polygon": SQUARE}))
    assert draw_label_images(tmp_path, workers=1).foreign == 1
    assert draw_label_images(tmp_path, workers=1, overwrite=True).drawn == 1


def test_cli__a_broken_files_earlier_image_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "a", annotation({"label": "car", "polygon": SQUARE}))
    draw_label_images(tmp_path, workers=1)
    before = label_path(path, "level3Id").read_bytes()
    path.write_text("[]")
    assert main(["data", "labels", "--root", str(tmp_path), "--workers", "1"]) == 1
    assert capsys.readouterr().err == (
        f"{path}: is not a polygon file: it is no object with a list 'objects'; its earlier label image "
        "stays and may be out of date\n1 polygon file could not be drawn\n"
    )
    assert label_path(path, "level3Id").read_bytes() == before


def test_cli__several_images_of_another_tool_are_plural(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        path = write(tmp_path, name, annotation())
        Image.new("L", (8, 8), 7).save(label_path(path, "level3Id"))
    assert main(["data", "labels", "--root", str(tmp_path), "--workers", "1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("2 label images were left alone: they differ from what the polygons give")
    assert "made or changed them: " in err
