"""`dinoidd predict`: a folder for each image, whole or not at all, wherever the image came from."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import S3
from image_files import encoded, picture
from images import BROKEN, GOOD
from PIL import Image
from segment_runs import TABLE, save_model

from dinoidd.cli import main, progress
from dinoidd.errors import OutputError
from dinoidd.prediction import run, segmentation
from dinoidd.prediction.naming import (
    FolderNames,
    digest,
    folders_below,
    owner_line,
    safe_folder,
    safe_name,
)
from dinoidd.segmenter import Segmenter

FILES = {
    *("original.png", "segmentation_raw.npy", "segmentation_colored.png"),
    *("comparison.png", "class_statistics.txt"),
}
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(autouse=True)
def no_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine they would come between the lines that are tested."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", float("inf"))


@pytest.fixture
def predict(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Run the command with a checkpoint and OUTPUT tmp_path/out: status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        options = ["--checkpoint", checkpoint, "--output", tmp_path / "out", "--device", "cpu"]
        status = main(["predict", *map(str, arguments), *map(str, options)])
        return status, *capsys.readouterr()

    return run


def write(path: Path, seed: int = 0) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(24, 40, seed=seed).save(path)
    return path


def folders(root: Path) -> list[str]:
    """The folders with a result; nothing else may be there."""
    found = [p.parent for p in root.rglob("class_statistics.txt")]
    inside = {f for folder in found for f in folder.iterdir()}
    above = {parent for folder in found for parent in [folder, *folder.parents]}
    assert set(root.rglob("*")) <= inside | above | {root / "index.csv"}
    assert all({p.name for p in folder.iterdir()} == FILES for folder in found)
    return sorted(str(folder.relative_to(root)) for folder in found)


def original_of(folder: Path) -> bytes:
    return Image.open(folder / "original.png").tobytes()


def test_predict__one_image(predict, tmp_path, checkpoint) -> None:
    path = write(tmp_path / "street.png")
    status, out, err = predict(path)
    assert (status, err) == (0, "")
    assert out == f"1 of 1 images segmented into {tmp_path}/out\n"
    assert folders(tmp_path / "out") == ["street_segmentation"]
    result = Segmenter.load(checkpoint, device="cpu").predict(path)
    raw = np.load(tmp_path / "out" / "street_segmentation" / "segmentation_raw.npy")
    np.testing.assert_array_equal(raw, result.classes)


def test_predict__statistics_text(predict, tmp_path) -> None:
    path = write(tmp_path / "street.png")
    predict(path)
    folder = tmp_path / "out" / "street_segmentation"
    raw = np.load(folder / "segmentation_raw.npy")
    lines = (folder / "class_statistics.txt").read_text().splitlines()
    assert lines[0] == str(path)
    assert lines[1].startswith("40 x 24 pixels · confidence 0.")
    assert lines[2] == ""
    assert lines[3].split() == ["class", "pixels", "per", "cent"]
    counts = np.bincount(raw.ravel(), minlength=len(TABLE))
    expected = [
        [*TABLE.names[i].split(), str(counts[i]), f"{100 * counts[i] / raw.size:.3f}"]
        for i in np.argsort(-counts, kind="stable")
        if counts[i]
    ]
    assert len(expected) >= 2
    assert [line.split() for line in lines[4 : 4 + len(expected)]] == expected
    assert lines[4 + len(expected)].split() == ["total", "960", "100.000"]
    absent = [TABLE.names[i] for i in range(len(TABLE)) if not counts[i]]
    assert lines[-1] == f"not in the image: {', '.join(absent)}"


def test_predict__folder_keeps_its_folders(predict, tmp_path) -> None:
    for number, name in enumerate(["a/x.png", "b/x.png", "b/c/x.png", "y.png"]):
        write(tmp_path / "in" / name, seed=number)
    assert predict(tmp_path / "in")[0] == 0
    expected = ["a/x_segmentation", "b/c/x_segmentation", "b/x_segmentation", "y_segmentation"]
    assert folders(tmp_path / "out") == expected
    for folder in expected:
        source = tmp_path / "in" / f"{folder.removesuffix('_segmentation')}.png"
        assert original_of(tmp_path / "out" / folder) == Image.open(source).tobytes()


def test_predict__same_names_do_not_collide(predict, tmp_path) -> None:
    paths = [write(tmp_path / n, seed=i) for i, n in enumerate(["a/x.png", "b/x.png", "b/x.bmp"])]
    for _ in range(2):  # the second time every image finds its folder again
        assert predict(*paths)[0] == 0
        names = [f"x-{digest(str(p))}_segmentation" for p in paths[1:]]
        assert folders(tmp_path / "out") == sorted(["x_segmentation", *names])
        for path, name in zip(paths, ["x_segmentation", *names], strict=True):
            assert original_of(tmp_path / "out" / name) == Image.open(path).tobytes()


def test_predict__later_command_does_not_take_anothers_folder(predict, tmp_path) -> None:
    first, second = write(tmp_path / "a/x.png", seed=0), write(tmp_path / "b/x.png", seed=1)
    predict(first)
    predict(second)
    write(first, seed=2)  # another picture under the same address replaces
    predict(first)
    own = tmp_path / "out" / f"x-{digest(str(second))}_segmentation"
    assert original_of(own) == Image.open(second).tobytes()
    assert original_of(tmp_path / "out" / "x_segmentation") == Image.open(first).tobytes()
    assert len(folders(tmp_path / "out")) == 2


def test_predict__index_tells_which_image_is_where(predict, tmp_path) -> None:
    paths = [write(tmp_path / n, seed=i) for i, n in enumerate(["a/x.png", "b/x.png", "c/y.png"])]
    predict(*paths[:2])
    predict(paths[2])
    index = tmp_path / "out" / "index.csv"
    second = f"x-{digest(str(paths[1]))}_segmentation"
    assert index.read_text().splitlines() == [
        "image,folder,error",
        f"{paths[1]},{second},",
        f"{paths[0]},x_segmentation,",
        f"{paths[2]},y_segmentation,",
    ]
    shutil.rmtree(tmp_path / "out" / second)
    predict(paths[2])
    assert second not in index.read_text()


def test_predict__index_of_somebody_else(predict, tmp_path) -> None:
    index = tmp_path / "out" / "index.csv"
    index.parent.mkdir()
    index.write_text("name,score\n")
    status, _, err = predict(write(tmp_path / "x.png"))
    assert status == 2
    assert err == (
        f"dinoidd predict: {index} is not the index of `dinoidd predict`: move it away, or choose "
        "another --output\n"
    )
    assert index.read_text() == "name,score\n"


def test_predict__a_missing_argument_does_not_stop_the_rest(predict, tmp_path) -> None:
    good, missing = write(tmp_path / "x.png"), tmp_path / "y.png"
    (tmp_path / "empty").mkdir()
    status, out, err = predict(missing, good, tmp_path / "empty")
    assert status == 1
    assert out == (f"1 of 1 images segmented into {tmp_path}/out\n2 of 3 arguments gave no image\n")
    assert err == (
        f"there is no file or folder {missing}: check the spelling\n"
        f"{tmp_path}/empty holds no image: it is empty, or nothing fits the pattern\n"
    )
    assert folders(tmp_path / "out") == ["x_segmentation"]


def test_predict__glob_and_repeated_arguments(predict, tmp_path) -> None:
    for name in ("day1/a.png", "day2/a.png", "day2/b.bmp"):
        write(tmp_path / "in" / name)
    status, out, _ = predict(tmp_path / "in" / "day*" / "*.png", tmp_path / "in" / "day1")
    assert (status, out.split(" images")[0]) == (0, "2 of 2")
    assert folders(tmp_path / "out") == ["day1/a_segmentation", "day2/a_segmentation"]


def test_predict__every_good_and_broken_image(predict, tmp_path) -> None:
    samples = {n: s for n, s in (GOOD | BROKEN).items() if n not in ("large.png", "heavy.bmp")}
    for name, sample in samples.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(sample.make())
    status, out, err = predict(tmp_path / "in", "--batch-size", 4)
    broken = {n: s for n, s in samples.items() if s.kind}
    assert status == 1
    assert out.startswith(f"{len(GOOD)} of {len(samples)} images segmented into {tmp_path}/out; ")
    assert f"{len(broken)} could not be (truncated 2, " in out
    lines = err.splitlines()
    for name, sample in broken.items():
        start = f"{tmp_path}/in/{name}: {sample.kind}: "
        assert any(line.startswith(start) and sample.words in line for line in lines), name
    assert len(lines) == len(broken)
    assert len(folders(tmp_path / "out")) == len(GOOD)


def test_predict__too_many_pixels(predict, tmp_path) -> None:
    write(tmp_path / "x.png")
    status, _, err = predict(tmp_path / "x.png", "--max-pixels", 959)
    assert status == 1
    assert "too_large: 40 x 24 pixels, over the limit of 959: raise --max-pixels" in err
    assert folders(tmp_path / "out") == []


def test_predict__index_tells_why_an_image_failed(predict, tmp_path) -> None:
    good, bad = write(tmp_path / "a.png"), write(tmp_path / "b.png")
    index = tmp_path / "out" / "index.csv"
    index.parent.mkdir()
    index.write_text("image,folder\n")  # of an earlier version
    bad.write_bytes(b"")
    assert predict(good, bad)[0] == 1
    expected = [
        "image,folder,error",
        f"{good},a_segmentation,",
        f"{bad},,empty: the file has no bytes",
    ]
    assert index.read_text().splitlines() == expected
    predict(good)
    assert index.read_text().splitlines() == expected
    write(bad)
    assert predict(bad)[0] == 0
    assert index.read_text().splitlines()[1:] == [
        f"{good},a_segmentation,",
        f"{bad},b_segmentation,",
    ]


def test_predict__decoder_bug_does_not_stop_the_rest(predict, tmp_path, monkeypatch) -> None:
    write(tmp_path / "in/a.png", seed=0)
    bad = write(tmp_path / "in/b.png", seed=1)
    read = Segmenter.read

    def fails(self: Segmenter, image: object):
        if image == str(bad):
            raise ZeroDivisionError("a bug")
        return read(self, image)

    monkeypatch.setattr(Segmenter, "read", fails)
    status, _, err = predict(tmp_path / "in")
    assert status == 1
    assert err == f"{bad}: crashed: ZeroDivisionError while it was decoded: a bug\n"
    assert folders(tmp_path / "out") == ["a_segmentation"]


def test_predict__output_inside_the_input_is_left_out(predict, tmp_path) -> None:
    write(tmp_path / "x.png")
    assert predict(tmp_path)[0] == 0
    status, out, err = predict(tmp_path)
    assert (status, out.split(" images")[0]) == (0, "1 of 1")
    assert err == f"left out 3 images inside {tmp_path}/out\n"
    assert folders(tmp_path / "out") == ["x_segmentation"]


def test_predict__s3(predict, tmp_path, s3: S3) -> None:
    bucket = s3.new_bucket()
    for name in ("day/a b.png", "day/x#1?%.png", "day/sub/street é.png"):
        body = encoded(picture(24, 40), "PNG")
        s3.client().put_object(Bucket=bucket, Key=name, Body=body)
    url = ["--endpoint-url", s3.endpoint_url]
    assert predict(f"s3://{bucket}/day", *url)[0] == 0
    expected = ["a b_segmentation", "sub/street é_segmentation", "x#1_%_segmentation"]
    assert folders(tmp_path / "out") == expected
    text = (tmp_path / "out" / "x#1_%_segmentation" / "class_statistics.txt").read_text()
    assert text.startswith(f"s3://{bucket}/day/x#1?%.png\n")


def test_predict__tells_how_far_it_is(predict, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png")
    err = predict(tmp_path / "in")[2]
    assert err.splitlines() == [f"segmented {n} of 3 images" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/x.png"], "there is no file or folder"),
        (["{tmp}/in/notes.md"], "is neither an image"),
        (
            ["{tmp}/in", "--image-size", "100"],
            "image size 100: a positive multiple of 32 is needed",
        ),
        (["{tmp}/in", "--output", "s3://bucket/x"], "--output s3://bucket/x: predict writes local"),
    ],
)
def test_predict__user_errors(predict, checkpoint, tmp_path, capsys, arguments, message) -> None:
    write(tmp_path / "in" / "x.png")
    (tmp_path / "in" / "notes.md").write_text("hello")
    given = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
    status = main(["predict", *given, *(a.format(tmp=tmp_path) for a in arguments)])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("dinoidd predict: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_predict__output_is_a_file(predict, tmp_path) -> None:
    (tmp_path / "out").write_text("")
    status, _, err = predict(write(tmp_path / "x.png"))
    assert status == 2
    folder = tmp_path / "out" / "x_segmentation"
    assert err == f"dinoidd predict: {folder} cannot be written: Not a directory\n"


def test_predict__random_weights_say_so(tmp_path, capsys) -> None:
    options = ["--preset", "tiny", "--image-size", "64", "--device", "cpu", "--classes", "camvid"]
    output = ["--output", str(tmp_path / "out")]
    assert main(["predict", str(write(tmp_path / "x.png")), *options, *output]) == 0
    assert "the weights are random" in capsys.readouterr().out


def test_write_folder__half_a_folder_is_never_seen(predict, tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "x.png", seed=0)
    predict(path)
    before = original_of(tmp_path / "out" / "x_segmentation")
    write(path, seed=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segmentation, "encode_mask", full)
    status, _, err = predict(path)
    assert status == 2
    assert err.endswith("x_segmentation cannot be written: No space left on device\n")
    assert folders(tmp_path / "out") == ["x_segmentation"]
    assert original_of(tmp_path / "out" / "x_segmentation") == before


def test_write_folder__clears_up_after_a_killed_one(predict, tmp_path) -> None:
    path = write(tmp_path / "x.png")
    predict(path)
    out = tmp_path / "out"
    shutil.copytree(out / "x_segmentation", out / ".x_segmentation.partial")
    shutil.copytree(out / "x_segmentation", out / ".x_segmentation.old")
    assert predict(path)[0] == 0
    assert folders(out) == ["x_segmentation"]


@pytest.mark.parametrize(
    ("uri", "argument", "below"),
    [
        ("/data/x.png", "/data/x.png", []),
        ("/data/x.png", "/data", []),
        ("/data/a/b/x.png", "/data/", ["a", "b"]),
        ("/data2/x.png", "/data", []),
        ("/data/a/x.png", "/data/*/x.png", ["a"]),
        ("/data/a/x.png", "/data/a*/*.png", ["a"]),
        ("/data/[1]/a/x.png", "/data/[1]", ["a"]),  # what exists under the literal name
        ("s3://bucket/a/x.png", "s3://bucket", ["a"]),
        ("s3://bucket/p/a//x.png", "s3://bucket/p/", ["a", ""]),
        ("/elsewhere/x.png", "/data/list.txt", []),
        ("https://host/a/x.png", "https://host/a/x.png", []),
    ],
)
def test_folders_below(uri: str, argument: str, below: list[str]) -> None:
    assert folders_below(uri, argument) == below


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("street", "street"),
        ("..", "__"),
        (".", "_"),
        ("", "_"),
        (".hidden", "_hidden"),
        ("/etc/passwd", "_etc_passwd"),
        ("..\\up", "_._up"),
        ("a\0b\nc\x1b[31m", "a_b_c_[31m"),
        ("C:x", "C_x"),
        ("trailing. ", "trailing._"),
        ("straße 街道 सड़क", "straße 街道 सड़क"),
        ("a#b%20&c", "a#b%20&c"),
        ("what?*", "what__"),
        ("\udcff", "_"),
        ("right\u202eleft", "right_left"),
    ],
)
def test_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize("letter", ["a", "é", "街", "🚗"])
def test_safe_name__overlong(letter: str) -> None:
    one, other = safe_name(letter * 400 + "1"), safe_name(letter * 400 + "2")
    assert one != other
    assert 160 <= len(one.encode()) <= 180
    assert one.startswith(letter * 40)


def test_safe_folder__is_never_an_images_folder() -> None:
    assert safe_folder("x_segmentation") == "x_segmentation_"
    assert safe_folder("X_Segmentation") == "X_Segmentation_"
    assert safe_folder("..") == "__"


HOSTILE = [
    "s3://b/p/../../../etc/x.png",
    "s3://b/p//etc/x.png",
    "s3://b/p/./x.png",
    "s3://b/p/\0/x\n.png",
    "s3://b/p/" + "deep/" * 20 + "x.png",
    "s3://b/p/" + "l" * 900 + ".png",
    "s3://b/p/..png",
    "s3://b/p/x_segmentation/y.png",
    "s3://b/p/x.png",
    "s3://b/p/X.png",
    "s3://b/p/x.jpg",
    "s3://b/p/e\u0301.png",
    "s3://b/p/\u00e9.png",
    "s3://b/p/...",
    "s3://b/p/C:\\x.png",
]


def test_folder_names__stay_inside_and_differ(tmp_path: Path) -> None:
    names = FolderNames(tmp_path)
    claimed = [names.claim(uri, folders_below(uri, "s3://b/p")) for uri in HOSTILE]
    assert len({str(folder).casefold() for folder in claimed}) == len(HOSTILE)
    for folder in claimed:
        assert folder.resolve().is_relative_to(tmp_path)
        assert ".." not in folder.parts
        (folder.with_name(f".{folder.name}.partial")).mkdir(parents=True)
        folder.mkdir()
    assert not any(a in b.parents for a in claimed for b in claimed)
    again = FolderNames(tmp_path.with_name("other"))
    second = [again.claim(uri, folders_below(uri, "s3://b/p")) for uri in HOSTILE]
    assert [f.relative_to(tmp_path) for f in claimed] == [
        f.relative_to(tmp_path.with_name("other")) for f in second
    ]


def test_folder_names__both_taken(tmp_path: Path) -> None:
    for name in ("x_segmentation", f"x-{digest('/a/x.png')}_segmentation"):
        (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match="holds something else: choose another --output"):
        FolderNames(tmp_path).claim("/a/x.png", [])


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("/a/x.png", "/a/x.png"),
        ("https://user:secret@host/x.png?sig=abc", "https://host/x.png ({})"),
        ("/a/x\n.png", "/a/x\\n.png ({})"),
        (None, "image"),
    ],
)
def test_owner_line__is_one_line_without_secrets(uri: str | None, line: str) -> None:
    assert owner_line("image", uri) == line.format(digest(uri or ""))


def test_predict__a_terminated_one_keeps_its_index(predict, tmp_path, monkeypatch) -> None:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png")
    images = run.predict_images

    def terminated(*args: object) -> Iterator[run.Outcome]:
        outcomes = images(*args)
        yield next(outcomes)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)  # never slept through: the signal is an interruption

    monkeypatch.setattr(run, "predict_images", terminated)
    assert predict(tmp_path / "in")[0] == 130
    assert (tmp_path / "out" / "index.csv").read_text() == (
        f"image,folder,error\n{tmp_path}/in/0.png,0_segmentation,\n"
    )
