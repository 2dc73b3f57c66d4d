"""`dinoidd data generate`: layout, repeatability, resuming, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinoidd.cli import main
from dinoidd.cli.data import parse_size, parse_splits
from dinoidd.data.dataset_plan import DatasetConfig, plan_frames, split_sizes
from dinoidd.data.generate import MARKER, generate_dataset
from dinoidd.data.scenes import generate_scene
from dinoidd.errors import ConfigError, OutputError

SMALL = {"images": 5, "size": (96, 64), "seed": 3}
COMMAND = ["data", "generate", "--images", "2", "--image-size", "64x64", "--output"]


def files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_generate__layout_is_that_of_idd(tmp_path: Path) -> None:
    info = generate_dataset(tmp_path, **SMALL, workers=1)
    images = [f"train/001/frame00000{i}" for i in range(4)] + ["val/002/frame000004"]
    labels = [f"gtFine/{name}_gtFine_labellevel3Ids.png" for name in images]
    expected = [MARKER, *labels, *(f"leftImg8bit/{name}_leftImg8bit.jpg" for name in images)]
    assert sorted(files_of(tmp_path)) == sorted(expected)
    assert (info.images, info.resumed, info.splits) == (5, 0, {"train": 4, "val": 1})


def test_generate__png_files_hold_the_scene_itself(tmp_path: Path) -> None:
    generate_dataset(tmp_path, **SMALL, format="png", workers=1)
    scene = generate_scene(np.random.default_rng([3, 4]), 96, 64)
    name = "val/002/frame000004"
    with Image.open(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png") as image:
        np.testing.assert_array_equal(np.asarray(image), scene.image)
    with Image.open(tmp_path / f"gtFine/{name}_gtFine_labellevel3Ids.png") as label:
        assert label.mode == "L"
        np.testing.assert_array_equal(np.asarray(label), scene.label)


def test_generate__jpeg_is_close_to_the_scene(tmp_path: Path) -> None:
    generate_dataset(tmp_path, images=1, size=(240, 135), seed=1)
    scene = generate_scene(np.random.default_rng([1, 0]), 240, 135)
    with Image.open(next(tmp_path.rglob("*.jpg"))) as image:
        assert (image.mode, image.size) == ("RGB", (240, 135))
        error = np.abs(np.asarray(image).astype(int) - scene.image)
    assert error.mean() < 4


def test_generate__workers_change_no_byte(tmp_path: Path) -> None:
    for workers in (1, 2):
        generate_dataset(tmp_path / str(workers), **SMALL, workers=workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_generate__another_seed_gives_other_files(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "a", **SMALL, workers=1)
    generate_dataset(tmp_path / "b", **{**SMALL, "seed": 4}, workers=1)
    one, other = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert set(one) == set(other)
    assert not [name for name in one if one[name] == other[name]]


def test_generate__finishes_what_was_interrupted(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "a", **SMALL, workers=1, progress=stop)
    assert json.loads((tmp_path / "a" / MARKER).read_text())["complete"] is False
    (tmp_path / "a/leftImg8bit/train/001/frame000003_leftImg8bit.jpg.part").write_bytes(b"half")
    reported: list[int] = []
    info = generate_dataset(tmp_path / "a", **SMALL, workers=1, progress=reported.append)
    assert (info.resumed, reported) == (3, [3, 4, 5])
    assert json.loads((tmp_path / "a" / MARKER).read_text())["complete"] is True
    generate_dataset(tmp_path / "b", **SMALL, workers=1)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_generate__counts_images_and_labels_apart(tmp_path: Path) -> None:
    generate_dataset(tmp_path, **SMALL, workers=1)
    before = files_of(tmp_path)
    labels = sorted(tmp_path.rglob("*_labellevel3Ids.png"))
    labels[0].unlink()
    labels[1].unlink()
    image = next(tmp_path.rglob("frame000004_leftImg8bit.jpg"))
    image.unlink()
    kept = labels[0].parents[3] / "leftImg8bit/train/001/frame000000_leftImg8bit.jpg"
    written = kept.stat().st_mtime_ns
    info = generate_dataset(tmp_path, **SMALL, workers=1)
    assert (info.images, info.resumed, info.labels_resumed, info.drawn) == (5, 4, 3, 3)
    assert files_of(tmp_path) == before
    assert kept.stat().st_mtime_ns == written  # what was there is not written again


def test_generate__a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(OutputError) as caught:
            generate_dataset(tmp_path, **SMALL, restart=restart)
        assert str(caught.value) == (
            f"--output {tmp_path} is not empty and was not made by `dinoidd data generate` (it "
            "holds thesis.tex): use a new or empty folder"
        )
    assert files_of(tmp_path) == {"thesis.tex": b"years of work"}


def test_generate__other_settings_need_restart(tmp_path: Path) -> None:
    generate_dataset(tmp_path, **SMALL, workers=1)
    wanted = {**SMALL, "images": 3, "seed": 9}
    with pytest.raises(OutputError) as caught:
        generate_dataset(tmp_path, **wanted)
    assert str(caught.value) == (
        f"--output {tmp_path} holds a data set of other settings: images 5 (now 3), seed 3 (now "
        "9); give --restart to throw it away, or name another folder"
    )
    info = generate_dataset(tmp_path, **wanted, workers=1, restart=True)
    assert (info.resumed, len(list(tmp_path.rglob("*.jpg")))) == (0, 3)


@pytest.mark.parametrize("text", ["", "[]", '{"settings": 5}'])
def test_generate__a_damaged_marker_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(OutputError, match="is damaged: give --restart to write the data set anew"):
        generate_dataset(tmp_path, **SMALL)


def test_generate__output_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file: name a new or an empty folder"):
        generate_dataset(tmp_path / "file", **SMALL)
    with pytest.raises(OutputError, match=r"cannot write the data set to .*file/below"):
        generate_dataset(tmp_path / "file" / "below", **SMALL)


def test_config__tells_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DatasetConfig(
            images=-1, seed=-2, width=20, format="bmp", splits=(("../x", 1.0), ("val", 0.0))
        )
    assert str(caught.value) == (
        "--images -1: at least 1 is needed; --seed -2: 0 or more is needed; --format bmp: there "
        "are jpg, png; --image-size 20x270: a scene has 64 to 8192 pixels a side; --splits: "
        "'../x' is no folder name (letters, digits, - and _); --splits: the share of 'val' is "
        "0.0, a positive number is needed"
    )


def test_plan_frames__no_two_splits_share_a_drive() -> None:
    config = DatasetConfig(images=60, splits=(("train", 7), ("val", 2), ("test", 1)))
    frames = list(plan_frames(config))
    assert [frame.index for frame in frames] == list(range(60))
    assert split_sizes(config) == [("train", 42), ("val", 12), ("test", 6)]
    splits_of_drive: dict[str, set[str]] = {}
    for frame in frames:
        splits_of_drive.setdefault(frame.drive, set()).add(frame.split)
    assert all(len(splits) == 1 for splits in splits_of_drive.values())
    assert len(splits_of_drive) == 5 + 2 + 1


def test_cli__writes_and_prints_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scenes"
    assert main([*COMMAND, str(output), "--splits", "train=1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["output"], told["images"], told["splits"]) == (str(output), 2, {"train": 2})
    assert main([*COMMAND, str(output), "--splits", "train=1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "images    2 (2 were there already)",
        "labels    2 (2 were there already)",
    ]
    for label in output.rglob("*_labellevel3Ids.png"):
        label.unlink()
    assert main([*COMMAND, str(output), "--splits", "train=1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "images    2 (2 were there already)",
        "labels    2 (0 were there already)",
    ]
    assert len(list(output.rglob("*_leftImg8bit.jpg"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "-4"], "--images -4: at least 1 is needed"),
        (["--workers", "0"], "--workers 0: at least 1 is needed"),
        (["--image-size", "50x300"], "--image-size 50x300: a scene has 64 to 8192 pixels a side"),
        (
            ["--image-size", "480"],
            "--image-size 480: give width and height in pixels, such as 480x270",
        ),
        (
            ["--splits", "train=x"],
            "--splits train=x: 'train=x' is not NAME=SHARE, such as train=0.7,val=0.3",
        ),
        (
            ["--output", "s3://bucket/x"],
            "--output s3://bucket/x: scenes go to a local folder; copy it to a bucket afterwards",
        ),
    ],
)
def test_cli__wrong_options_end_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([*COMMAND, str(tmp_path / "out"), *options]) == 2
    assert capsys.readouterr().err == f"dinoidd data: {message}\n"
    assert not (tmp_path / "out").exists()


def test_parse__sizes_and_splits() -> None:
    assert parse_size("1920X1080") == (1920, 1080)
    assert parse_splits("train=0.7, val=.3") == [("train", 0.7), ("val", 0.3)]
