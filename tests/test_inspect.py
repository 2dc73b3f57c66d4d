"""`dinoidd data inspect`: pairing, counting, telling encodings apart, warnings and pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinoidd.classes import BUILT_IN, IDD, ClassTable
from dinoidd.cli import main
from dinoidd.data.encoding import judge_encoding
from dinoidd.data.frames import find_frames
from dinoidd.data.image import upright_size
from dinoidd.data.inspect import Inspection, inspect_dataset
from dinoidd.data.inspect_warnings import find_warnings
from dinoidd.data.label_counts import FrameCounter
from dinoidd.data.label_image import count_values, read_label
from dinoidd.errors import ConfigError, ImageError, InputError
from dinoidd.inspection.bar_chart import draw_bar_chart
from dinoidd.inspection.contact_sheet import draw_contact_sheet
from dinoidd.inspection.text import describe
from dinoidd.storage import Store

SIZE = (16, 10)
STREET = {0: 80, 9: 40, 25: 40}  # pixels of road, car and sky
POLYGONS = (
    '{"imgWidth": 16, "imgHeight": 10, '
    '"objects": [{"label": "car", "polygon": [[1, 1], [9, 1], [5, 9]]}]}'
)
OTHER_STREET = {0: 100, 4: 20, 255: 40}


def label_of(values: dict[int, int]) -> np.ndarray:
    pixels = np.repeat(list(values), list(values.values())).astype(np.uint8)
    return pixels.reshape(SIZE[1], SIZE[0])


def write_label(root: Path, key: str, values: dict[int, int] | np.ndarray) -> Path:
    path = root / "gtFine" / f"{key}_gtFine_labellevel3Ids.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    array = values if isinstance(values, np.ndarray) else label_of(values)
    Image.fromarray(array).save(path)
    return path


def write_image(root: Path, key: str, size: tuple[int, int] = SIZE) -> Path:
    path = root / "leftImg8bit" / f"{key}_leftImg8bit.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)
    return path


def write_frame(root: Path, key: str, values: dict[int, int] = STREET) -> None:
    write_image(root, key)
    write_label(root, key, values)


def inspect(root: Path, **options: object) -> Inspection:
    return inspect_dataset(str(root), workers=1, **options)  # type: ignore[arg-type]


def test_inspect__shares_of_pixels_and_of_images(tmp_path: Path) -> None:
    write_frame(tmp_path, "train/0/a")
    write_frame(tmp_path, "train/0/b", OTHER_STREET)
    write_frame(tmp_path, "val/1/c", {0: 160})
    found = inspect(tmp_path)
    shares = {c.name: c for c in found.classes("train")}
    assert (shares["road"].pixels, shares["road"].pixel_share) == (180, 180 / 320)
    assert (shares["road"].image_share, shares["car"].image_share) == (1.0, 0.5)
    assert (shares["void"].pixels, shares["void"].images) == (40, 1)
    everything = {c.name: c for c in found.classes()}
    assert everything["road"].pixels == 340
    assert everything["person"].image_share == 1 / 3
    assert sum(c.pixel_share for c in found.classes()) == pytest.approx(1.0)
    assert found.total.raw_pixels == {0: 340, 9: 40, 25: 40, 4: 20, 255: 40}
    assert found.total.sizes == {"16x10": 3}
    assert list(found.splits) == ["train", "val"]


def test_inspect__what_is_missing_and_what_is_broken(tmp_path: Path) -> None:
    write_frame(tmp_path, "train/0/a")
    write_image(tmp_path, "train/0/b")
    write_label(tmp_path, "train/0/c", STREET)
    write_frame(tmp_path, "train/0/d")
    write_image(tmp_path, "train/0/d", (20, 10))
    write_frame(tmp_path, "train/0/e")
    broken = write_label(tmp_path, "train/0/e", STREET)
    broken.write_bytes(broken.read_bytes()[:60])
    write_image(tmp_path, "train/0/f")
    (tmp_path / "gtFine/train/0/f_gtFine_polygons.json").write_text(POLYGONS)
    write_image(tmp_path, "test/1/g")
    (tmp_path / "leftImg8bit/test/1/g_leftImg8bit.jpg").write_bytes(b"")
    found = inspect(tmp_path)
    train = found.splits["train"]
    assert (train.frames, train.labels, train.labels_read, train.polygons) == (5, 4, 3, 1)
    warnings = find_warnings(found)
    for part in (
        "train: an image and no label: 1 frame (train/0/b)",
        "train: a label and no image: 1 frame (train/0/c)",
        "train: polygons and no label image: 1 frame (train/0/f); `dinoidd data labels --root ",
        "test: not one of 1 frames has a label",
        "files that cannot be read: 2 files (",
        f"{broken}: cannot be read as an image",
        "g_leftImg8bit.jpg: cannot be read as an image: bytes of no known format",
        "label and image differ in size: 1 frame (train/0/d: image 20x10, label 16x10)",
        "1 file is a second image or label of the same frame, such as",
    ):
        assert any(part in warning for warning in warnings), (part, warnings)


def test_inspect__broken_polygons_are_no_label(tmp_path: Path) -> None:
    for name, text in (("a", "{"), ("b", POLYGONS.replace("car", "cow")), ("c", POLYGONS)):
        write_image(tmp_path, f"train/0/{name}")
        path = tmp_path / f"gtFine/train/0/{name}_gtFine_polygons.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = inspect(tmp_path)
    train = found.splits["train"]
    assert (train.frames, train.polygons, train.without_label.count) == (3, 1, 2)
    assert train.only_polygons.examples == ["train/0/c"]
    assert train.broken.examples[1] == (
        f"{tmp_path}/gtFine/train/0/b_gtFine_polygons.json: object 0 has the unknown label 'cow': give "
        "it one of IDD's labels, or set 'deleted': 1"
    )
    assert "train: an image and no label: 2 frames (train/0/a, train/0/b)" in find_warnings(found)


def test_inspect__nothing_odd(tmp_path: Path) -> None:
    for i in range(13):
        write_frame(tmp_path, f"train/0/{i}", {2 * i + 1: 100, 2 * i if i else 2: 40, 0: 20})
    assert find_warnings(inspect(tmp_path)) == []


def test_encoding__official(tmp_path: Path) -> None:
    for i in range(9):
        write_label(tmp_path, f"train/0/{i}", STREET)
    write_label(tmp_path, "train/0/9", {255: 80, 9: 80})
    verdict = inspect(tmp_path).verdict
    assert verdict is not None
    assert (verdict.encoding, verdict.clear) == ("official", True)
    assert verdict.sentence == (
        "0 (road) occurs in 9 of 10 label images, as it does in the official encoding alone"
    )


def test_encoding__road255_is_found_and_read_so(tmp_path: Path) -> None:
    for i in range(5):
        write_frame(tmp_path, f"train/0/{i}", {255: 80, 9: 40, 25: 40})
    found = inspect(tmp_path)
    assert found.encoding == "road255"
    assert {c.name: c.pixels for c in found.classes() if c.pixels} == {
        "road": 400,
        "car": 200,
        "sky": 200,
    }
    assert any(
        w.endswith("read officially, all road would be ignored") for w in find_warnings(found)
    )
    wrong = inspect(tmp_path, encoding="official")
    assert {c.name: c.pixels for c in wrong.classes()}["void"] == 400
    assert any(
        w.startswith(
            "the label images were read as `official`, and they fit `road255`: 0 occurs in"
        )
        for w in find_warnings(wrong)
    )


def test_encoding__a_mixture_is_doubted(tmp_path: Path) -> None:
    for i in range(6):
        write_label(tmp_path, f"train/0/{i}", STREET if i % 2 else {255: 80, 9: 80})
    verdict = inspect(tmp_path).verdict
    assert verdict is not None
    assert (verdict.encoding, verdict.clear) == ("official", False)
    assert "3 have no 0 and much 255: some of them may be in `road255`" in verdict.sentence


@pytest.mark.parametrize(
    ("values", "encoding", "sentence"),
    [
        ({9: 80, 25: 80}, "undecided", "too little to tell `official` from `road255`"),
        ({0: 80, 35: 80}, "other", "raw values 35 occur: the encoding `id`"),
        ({0: 80, 200: 40, 255: 40}, "other", "raw values 200 occur: neither of IDD's level 3"),
    ],
)
def test_encoding__other_values(
    tmp_path: Path, values: dict[int, int], encoding: str, sentence: str
) -> None:
    write_label(tmp_path, "train/0/a", values)
    found = inspect(tmp_path)
    assert found.verdict is not None
    assert (found.verdict.encoding, found.verdict.clear) == (encoding, False)
    assert sentence in found.verdict.sentence
    assert any(sentence in warning for warning in find_warnings(found))


def test_encoding__colour_images_are_no_ids(tmp_path: Path) -> None:
    write_label(tmp_path, "train/0/a", np.full((10, 16, 3), (128, 64, 0), np.uint8))
    write_label(tmp_path, "train/0/b", STREET)
    found = inspect(tmp_path)
    verdict = judge_encoding(found.total)
    assert verdict.encoding == "other"
    assert verdict.sentence == (
        "1 of 2 label images are in colour (train/0/a); draw them anew with --encoding level3Id"
    )
    shown = "0: 25.0 %, 9: 12.5 %, 25: 12.5 %, #804000: 50.0 %"
    warnings = find_warnings(found)
    assert f"raw values, of all pixels: {shown}\n" in describe(found, warnings)
    assert found.to_dict()["total"]["raw_pixels"] == {"0": 80, "9": 40, "25": 40, "#804000": 160}
    assert any("does not name: [128, 64, 0] (50.0 %" in warning for warning in warnings)


def test_inspect__values_that_the_table_does_not_name(tmp_path: Path) -> None:
    write_frame(tmp_path, "train/0/a", {0: 80, 26: 40, 77: 40})
    assert any(
        "raw values that class table 'idd' does not name: 26, 77 (50.0 % of the pixels)" in warning
        for warning in find_warnings(inspect(tmp_path))
    )


def test_inspect__other_layouts_and_tables(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        for folder, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new(mode, SIZE, (3, 3, 3)[: len(mode)] if mode == "RGB" else 3).save(
                tmp_path / folder / f"{name}.png"
            )
    found = inspect(tmp_path, table=BUILT_IN["camvid"])
    assert (found.encoding, found.verdict) == ("table", None)
    assert {c.name: c.images for c in found.classes() if c.images} == {"road": 3}
    assert {name: tally.labels for name, tally in found.splits.items()} == {"train": 2, "val": 1}


def test_inspect__colours_and_folders_of_annotations(tmp_path: Path) -> None:
    for folder in ("images/train", "annotations/train"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", SIZE).save(tmp_path / "images/train/a.jpg")
    Image.new("RGB", SIZE, (128, 0, 192)).save(tmp_path / "annotations/train/a.png")
    Image.new("RGB", SIZE).save(tmp_path / "images/train/b.jpg")
    Image.new("RGB", SIZE, (1, 2, 3)).save(tmp_path / "annotations/train/b.png")
    found = inspect(tmp_path, table=BUILT_IN["camvid32"])
    assert {c.name: c.images for c in found.classes() if c.images} == {"LaneMkgsDriv": 1}
    assert any("does not name: [1, 2, 3] (50.0 %" in w for w in find_warnings(found))


def test_inspect__the_tables_own_label_images(tmp_path: Path) -> None:
    write_frame(tmp_path, "train/0/a")
    other = tmp_path / "gtFine/train/0/a_gtFine_labellevel1Ids.png"
    Image.new("L", SIZE, 6).save(other)
    found = inspect(tmp_path, table=BUILT_IN["idd_level1"])
    assert {c.name: c.pixels for c in found.classes() if c.pixels} == {"sky": 160}
    assert found.files.other == {"_gtFine_labellevel3Ids.png": 1}
    with pytest.raises(
        ConfigError, match="--encoding road255: for class table 'idd_level1' there are"
    ):
        inspect(tmp_path, table=BUILT_IN["idd_level1"], encoding="road255")


def test_inspect__an_empty_or_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no frames; known layouts are leftImg8bit/SPLIT/"):
        inspect(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        inspect(tmp_path / "nowhere")


def test_tally__adds_up_in_any_division(tmp_path: Path) -> None:
    for i in range(7):
        write_frame(tmp_path, f"train/0/{i}", OTHER_STREET if i % 3 else STREET)
    write_image(tmp_path, "train/0/x")
    frames = list(find_frames(str(tmp_path)).frames.values())
    counter = FrameCounter(table=IDD, encodings={"official": IDD.raw_values})
    whole = counter.count(frames)
    parts = counter.count(frames[:3]).merge(counter.count(frames[3:4]))
    assert parts.merge(counter.count(frames[4:])) == whole


def test_inspect__processes_change_nothing(tmp_path: Path) -> None:
    for i in range(40):
        write_frame(tmp_path, f"train/{i % 17}/{i}", OTHER_STREET if i % 3 else STREET)
    one, two = inspect(tmp_path), inspect_dataset(str(tmp_path), workers=2)
    assert one.splits == two.splits
    assert one.total.labels_read == 40


def test_frames__in_a_bucket(tmp_path: Path, store: Store) -> None:
    write_frame(tmp_path, "train/0/a")
    write_image(tmp_path, "val/0/b")
    for path in tmp_path.rglob("*.png"):
        store.write_bytes(str(path.relative_to(tmp_path)), path.read_bytes())
    found = inspect_dataset(store.uri, options=store.options, workers=1)
    assert list(found.files.frames) == ["train/0/a", "val/0/b"]
    assert found.total.sizes == {"16x10": 2}
    assert {c.name for c in found.classes() if c.images} == {"road", "car", "sky"}


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_read_label__values_of_grey_palette_and_16_bit(tmp_path: Path, mode: str) -> None:
    array = np.array([[1, 2], [3, 200]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(IDD.palette)
    image.save(tmp_path / "label.png")
    raw = read_label((tmp_path / "label.png").read_bytes())
    assert (raw.dtype, raw.tolist()) == (np.uint8, array.tolist())
    assert count_values(raw) == {1: 1, 2: 1, 3: 1, 200: 1}


def test_read_label__a_palette_is_colours_where_the_table_has_colours_alone(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 5)
    image.putpalette([0] * 15 + [128, 64, 128])
    image.save(tmp_path / "label.png")
    data = (tmp_path / "label.png").read_bytes()
    assert read_label(data, BUILT_IN["camvid32"]).tolist() == [[[128, 64, 128]] * 2]
    assert read_label(data, BUILT_IN["camvid"]).tolist() == [[5, 5]]


def test_read_label__what_is_none() -> None:
    with pytest.raises(ImageError, match="cannot be read as an image"):
        read_label(b"no image")


def test_bar_chart__bars_have_the_length_of_their_share(tmp_path: Path) -> None:
    write_label(tmp_path, "train/0/a", {0: 80, 25: 80})
    found = inspect(tmp_path)
    chart = np.asarray(draw_bar_chart("Title", "subtitle", found.classes(), IDD))
    road, sky, car = (
        (chart == IDD.classes[i].color).all(axis=-1).sum(axis=1).max() for i in (0, 25, 9)
    )
    swatch = car
    assert road == sky
    assert road == swatch + 211 + 421  # half of the pixels, and all of the images


def test_contact_sheet__shows_labels_over_images(tmp_path: Path) -> None:
    write_frame(tmp_path, "train/0/a", {0: 80, 255: 80})
    sheet = draw_contact_sheet(inspect(tmp_path))
    assert sheet is not None
    colors = {color: count for count, color in sheet.getcolors(1 << 20) or []}
    photo, road = np.array([90, 120, 60]), np.array(IDD.classes[0].color)
    mixed = tuple(int(v) for v in np.floor(photo * 0.35 + road * 0.65))
    assert colors[(90, 120, 60)] > 1.4 * colors[mixed] > 0  # the picture, and what is void
    write_image(tmp_path / "b", "train/0/a")
    assert draw_contact_sheet(inspect(tmp_path / "b")) is None


def test_cli__report_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frame(tmp_path / "set", "train/0/a")
    command = ["data", "inspect", str(tmp_path / "set"), "--workers", "1"]
    assert main([*command, "--json", "-", "--report", str(tmp_path / "report")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"]["classes"][0] == {
        "name": "road",
        "pixels": 80,
        "pixel_share": 0.5,
        "images": 1,
        "image_share": 1.0,
    }
    assert told["verdict"]["encoding"] == "official"
    assert told["warnings"][0].startswith("classes without a pixel: parking, ")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["classes.png", "contact_sheet.png", "counts.json", "summary.txt"]
    assert json.loads((tmp_path / "report/counts.json").read_text()) == told
    assert main(command) == 0
    assert capsys.readouterr().out == (tmp_path / "report/summary.txt").read_text()


def test_cli__wrong_options_end_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "inspect", str(tmp_path), "--workers", "0"]) == 2
    assert capsys.readouterr().err == "dinoidd data: --workers 0: at least 1 is needed\n"
    write_frame(tmp_path, "train/0/a")
    assert main(["data", "inspect", str(tmp_path), "--classes", "nothing"]) == 2
    assert "unknown class table 'nothing'" in capsys.readouterr().err


def test_inspect__a_users_table(tmp_path: Path) -> None:
    table = ClassTable.from_dict(
        {
            "name": "mine",
            "unmapped": "ignore",
            "classes": [
                {"name": "ground", "color": [1, 1, 1], "values": [0, 1]},
                {"name": "car", "color": [2, 2, 2], "values": [9]},
            ],
        }
    )
    write_frame(tmp_path, "train/0/a")
    shares = {c.name: c.pixels for c in inspect(tmp_path, table=table).classes()}
    assert shares == {"ground": 80, "car": 40, "void": 40}


def test_inspect__on_ray_counts_the_same(tmp_path: Path) -> None:
    from dinoidd.inspection.job import map_on_ray

    for i in range(20):
        write_frame(tmp_path, f"train/0/{i}", OTHER_STREET if i % 3 else STREET)
    assert inspect_dataset(str(tmp_path), mapper=map_on_ray).splits == inspect(tmp_path).splits


def test_describe__a_value_of_all_pixels(tmp_path: Path) -> None:
    write_label(tmp_path, "train/0/a", {0: 160})
    found = inspect(tmp_path)
    assert "raw values, of all pixels: 0: 100.0 %\n" in describe(found, find_warnings(found))


@pytest.mark.parametrize(("frames", "told"), [(19, 0), (20, 1)])
def test_encoding__no_class_above_18_is_doubted_once(
    tmp_path: Path, frames: int, told: int
) -> None:
    for i in range(frames):
        write_label(tmp_path, f"train/0/{i}", {0: 80, 18: 80})
    found = inspect(tmp_path)
    assert found.verdict is not None
    assert (found.verdict.encoding, found.verdict.clear) == ("official", not told)
    warnings = [w for w in find_warnings(found) if "are these csTrainId, level2Id" in w]
    assert len(warnings) == told


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_inspect__sizes_are_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "leftImg8bit/train/0/a_leftImg8bit.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", SIZE).save(path, exif=exif)
    assert upright_size(Image.open(path)) == (SIZE if orientation == 1 else SIZE[::-1])
    expected = "16x10" if orientation == 1 else "10x16"
    assert inspect(tmp_path).total.sizes == {expected: 1}


def test_read_label__one_bit_is_black_and_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(path)
    assert Image.open(path).mode == "1"
    assert read_label(path.read_bytes()).tolist() == [[0, 255]]


def test_cli__strict_fails_on_warnings(tmp_path: Path) -> None:
    write_frame(tmp_path, "train/0/a")
    command = ["data", "inspect", str(tmp_path), "--workers", "1"]
    assert main(command) == 0
    assert main([*command, "--strict"]) == 1
    for i in range(13):
        write_frame(
            tmp_path / "good", f"train/0/{i}", {2 * i + 1: 100, 2 * i if i else 2: 40, 0: 20}
        )
    assert main(["data", "inspect", str(tmp_path / "good"), "--workers", "1", "--strict"]) == 0


def test_inspect__folders_of_images_alone_are_no_data_set(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.new("RGB", SIZE).save(tmp_path / folder / "x.png")
    with pytest.raises(InputError) as caught:
        inspect(tmp_path)
    start = f"{tmp_path} holds 2 images and not one label where they are looked for: it is no data set; "
    assert str(caught.value).startswith(f"{start}known layouts are leftImg8bit/SPLIT/DRIVE/")
    write_image(tmp_path / "idd", "test/0/a")  # IDD's test split has no labels
    assert inspect(tmp_path / "idd").total.frames == 1
