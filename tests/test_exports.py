import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import S3
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.classes import IDD, ClassInfo, ClassTable
from dinoidd.cli import main
from dinoidd.errors import ConfigError, OutputError
from dinoidd.exports import FORMATS, export
from dinoidd.exports.cityscapes import cityscapes_ids, match_ids
from dinoidd.exports.coco_rle import encode_classes
from dinoidd.exports.names import Names
from dinoidd.exports.original_file import read_original_file
from dinoidd.exports.png_folder import encoding_of
from dinoidd.exports.selection import read_rows, select_images
from dinoidd.exports.threads import map_in_threads
from dinoidd.output.reader import RunReader
from dinoidd.storage import ObjectReader, StorageOptions

OFFICIAL = "leftImg8bit/val/007/frame{0:04d}_leftImg8bit.png"


class IddNamed(SyntheticOutput):
    """Images under IDD's names."""

    def uri(self, image_id: int) -> str:
        return str(self.folder / "in" / OFFICIAL.format(image_id))

    def write_inputs(self) -> None:
        Path(self.uri(0)).parent.mkdir(parents=True)
        super().write_inputs()


class Hostile(SyntheticOutput):
    """Every image has the URI that the test gives it."""

    uris: tuple[str, ...] = ()

    def uri(self, image_id: int) -> str:
        return self.uris[image_id]


def hostile_run(folder: Path, uris: list[str]) -> SyntheticOutput:
    kind = type("Run", (Hostile,), {"uris": tuple(uris)})
    return kind(folder, images=len(uris), errors={})


@pytest.fixture
def run(tmp_path: Path) -> SyntheticOutput:
    run = SyntheticOutput(tmp_path)
    run.write_inputs()
    return run


@pytest.fixture
def idd_run(tmp_path: Path) -> IddNamed:
    run = IddNamed(tmp_path, images=20)
    run.write_inputs()
    return run


def reader(run: SyntheticOutput) -> RunReader:
    return RunReader(str(run.out), StorageOptions())


def command(run: SyntheticOutput, format: str, to: Path, *more: str) -> int:
    return main(["export", str(run.out), "--format", format, "--to", str(to), *more])


def index(folder: Path) -> dict[int, str]:
    with (folder / "index.csv").open(newline="") as file:
        return {int(row["image_id"]): row["file"] for row in csv.DictReader(file)}


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def pixels(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


# PNG


def test_png__official_names_and_values(idd_run, tmp_path, capsys):
    to = tmp_path / "labels"
    assert command(idd_run, "png", to) == 0
    files = index(to)
    assert sorted(files) == [i for i in range(20) if i != 3]
    assert files[7] == "gtFine/val/007/frame0007_gtFine_labelClassIds.png"
    for image_id, file in files.items():
        assert np.array_equal(pixels(to / file), idd_run.mask(image_id))
    out = capsys.readouterr().out
    assert out == f"exported  19 masks to {to} (png)\nerrors    1 rows: missing 1\n"


def test_png__other_names_keep_their_path(run, tmp_path):
    command(run, "png", tmp_path / "labels")
    assert index(tmp_path / "labels")[12] == "masks/0012.png"
    assert np.array_equal(pixels(tmp_path / "labels/masks/0012.png"), run.mask(12))


def test_encoding__follows_the_table():
    assert encoding_of(IDD) == "labellevel3Ids"
    other = ClassTable(name="idd", classes=IDD.classes[::-1])
    assert encoding_of(other) == "labelClassIds"
    assert encoding_of(TABLE) == "labelClassIds"


# Cityscapes


def test_cityscapes__ids_by_name_and_the_rest_is_told(idd_run, tmp_path, capsys):
    table = ClassTable(
        name="toy", classes=(*TABLE.classes[:3], ClassInfo(name="autorickshaw", color=(1, 2, 3)))
    )

    def rename(row):
        for column in ("pixels", "fraction"):
            row[column]["autorickshaw"] = row[column].pop("rail_track")

    rows = [idd_run.row(i) for i in range(20)]
    for row in rows:
        if row["status"] == "ok":
            rename(row)
    idd_run.write_part(0, rows, table)
    assert command(idd_run, "cityscapes", tmp_path / "x") == 0
    label = pixels(tmp_path / "x/gtFine/val/007/frame0005_gtFine_labelIds.png")
    assert np.array_equal(label, np.array([7, 19, 23, 0], np.uint8)[idd_run.mask(5)])
    assert "0 (unlabeled)" in capsys.readouterr().out
    ids = json.loads((tmp_path / "x/label_ids.json").read_text())
    assert ids["classes"] == {"road": 7, "traffic light": 19, "sky": 23, "autorickshaw": 0}


def test_cityscapes__knows_the_official_ids():
    ids = match_ids(IDD)
    assert {n: ids[n] for n in ("road", "rider", "guard rail", "pole")} == {
        "road": 7,
        "rider": 25,
        "guard rail": 14,
        "pole": 17,
    }
    assert [n for n, v in ids.items() if not v] == [
        "autorickshaw",
        "vehicle fallback",
        "curb",
        "billboard",
        "obs-str-bar-fallback",
    ]
    assert len(set(cityscapes_ids().values())) == len(cityscapes_ids()) == 28


def test_cityscapes__without_a_common_class(tmp_path, capsys):
    run = SyntheticOutput(tmp_path, images=2)
    table = ClassTable(name="fruit", classes=(ClassInfo(name="apple", color=(1, 2, 3)),))
    rows = [run.row(i) | {"pixels": None, "fraction": None} for i in range(2)]
    run.write_part(0, rows, table)
    assert command(run, "cityscapes", tmp_path / "x") == 2
    assert "none of the classes of 'fruit' is one of Cityscapes'" in capsys.readouterr().err


# COCO


def test_rle__is_that_of_pycocotools():
    rng = np.random.default_rng(0)
    masks = [
        rng.integers(0, 4, (37, 53), np.uint8),
        np.zeros((5, 7), np.uint8),
        np.kron(rng.integers(0, 26, (9, 16), np.uint8), np.ones((50, 60), np.uint8)),
        np.pad(np.ones((1, 1), np.uint8), ((2000, 3), (1500, 0))),
    ]
    for mask_HW in masks:
        found = {c: (counts, area, box) for c, counts, area, box in encode_classes(mask_HW)}
        assert sorted(found) == np.unique(mask_HW).tolist()
        for class_id, (counts, area, box) in found.items():
            rle = coco_mask.encode(np.asfortranarray(mask_HW == class_id, np.uint8))
            assert counts == rle["counts"].decode()
            assert area == coco_mask.area(rle)
            assert box == coco_mask.toBbox(rle).astype(int).tolist()


def test_coco__stuff_is_read_by_pycocotools(run, tmp_path, capsys):
    assert command(run, "coco", tmp_path / "x") == 0
    coco = COCO(str(tmp_path / "x/annotations/stuff.json"))
    assert len(coco.imgs) == 98
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == TABLE.names
    for image_id in (0, 9, 99):
        decoded = np.zeros((24, 32), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])):
            decoded += coco.annToMask(annotation) * np.uint8(annotation["category_id"])
        assert np.array_equal(decoded, run.mask(image_id) + 1)


def test_coco__panoptic_follows_its_rules(run, tmp_path):
    to = tmp_path / "x"
    assert command(run, "coco", to) == 0
    panoptic = json.loads((to / "annotations/panoptic.json").read_text())
    images = {image["id"]: image for image in panoptic["images"]}
    categories = {c["id"]: c for c in panoptic["categories"]}
    assert {c["isthing"] for c in categories.values()} == {0}
    assert len(panoptic["annotations"]) == len(images) == 98
    for annotation in panoptic["annotations"]:
        image = images[annotation["image_id"]]
        png = Image.open(to / "panoptic" / annotation["file_name"])
        assert (png.mode, png.size) == ("RGB", (image["width"], image["height"]))
        rgb_HW3 = np.asarray(png).astype(int)
        ids_HW = rgb_HW3 @ [1, 256, 65536]
        areas = dict(zip(*(v.tolist() for v in np.unique(ids_HW, return_counts=True)), strict=True))
        assert areas == {s["id"]: s["area"] for s in annotation["segments_info"]}
        assert {s["category_id"] for s in annotation["segments_info"]} <= set(categories)
        assert np.array_equal(ids_HW, run.mask(image["id"]).astype(int) + 1)
    assert (tmp_path / "in" / images[5]["file_name"]).is_file()  # below the images' folder


def test_coco__file_name_leads_to_the_image(tmp_path):
    uris = ["s3://b/day 1/a#1.jpg", "s3://b/day 1/.hidden/CON.png", "s3://b/day 1/a 1.jpg"]
    run = hostile_run(tmp_path, uris)
    assert command(run, "coco", tmp_path / "x") == 0
    for name in ("panoptic", "stuff"):
        content = json.loads((tmp_path / f"x/annotations/{name}.json").read_text())
        root = content["info"]["images_root"]
        assert [root + image["file_name"] for image in content["images"]] == uris
    panoptic = json.loads((tmp_path / "x/annotations/panoptic.json").read_text())
    masks = [annotation["file_name"] for annotation in panoptic["annotations"]]
    assert masks == ["a_1~0.png", "_hidden/_CON.png", "a_1~2.png"]
    assert all((tmp_path / "x/panoptic" / mask).is_file() for mask in masks)


# Hugging Face


def test_hugging_face__is_read_by_datasets(idd_run, tmp_path, monkeypatch):
    Path(idd_run.uri(9)).unlink()
    assert command(idd_run, "hugging-face", tmp_path / "x") == 1
    from datasets import load_dataset

    data = load_dataset(str(tmp_path / "x"), cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in data.items()} == {"validation": 19}
    rows = {row["image_id"]: row for row in data["validation"]}
    assert [image_id for image_id, row in rows.items() if row["image"] is None] == [9]
    for image_id, row in rows.items():
        assert np.array_equal(np.asarray(row["mask"]), idd_run.mask(image_id))
        if row["image"] is not None:
            assert row["image"].size == row["mask"].size
    assert rows[4]["confidence"] == pytest.approx(0.54)
    assert rows[4]["uri"] == idd_run.uri(4)
    names = json.loads((tmp_path / "x/id2label.json").read_text())
    assert names == {"0": "road", "1": "traffic light", "2": "sky", "3": "rail track"}


def test_hugging_face__no_original_can_be_read(idd_run, tmp_path, capsys):
    shutil.rmtree(tmp_path / "in")
    assert command(idd_run, "hugging-face", tmp_path / "x") == 1
    out = capsys.readouterr().out
    assert "exported  19 masks" in out
    assert "no image  19 rows: missing 19\n" in out
    examples = ", ".join(f"{idd_run.uri(i)} (missing)" for i in range(3))
    assert out.endswith(
        "note: 19 original images could not be read, so their rows have a mask and no image: "
        f"{examples}, ...\n"
    )


def test_hugging_face__shards(run, tmp_path, monkeypatch):
    monkeypatch.setattr("dinoidd.exports.hugging_face._SHARD", 1)
    monkeypatch.setattr("dinoidd.exports.hugging_face._ROWS", 40)
    to = tmp_path / "x"
    assert command(run, "hugging-face", to) == 0
    (to / "data/train-00007.parquet").write_bytes(b"of an earlier, longer export")
    assert command(run, "hugging-face", to) == 0
    files = sorted((to / "data").iterdir())
    assert [p.name for p in files] == [f"train-{i:05d}.parquet" for i in range(3)]
    assert [pq.read_metadata(p).num_rows for p in files] == [40, 40, 18]
    assert index(to)[99] == "data/train-00002.parquet"


# FiftyOne


def test_fiftyone__data_and_labels_pair_up(idd_run, tmp_path, capsys):
    Path(idd_run.uri(9)).unlink()
    to = tmp_path / "x"
    assert command(idd_run, "fiftyone", to) == 1
    data = {p.relative_to(to / "data").with_suffix("") for p in (to / "data").rglob("*.*")}
    labels = {p.relative_to(to / "labels").with_suffix("") for p in (to / "labels").rglob("*.*")}
    assert data == labels
    assert len(labels) == 18
    label = pixels(to / "labels/val/007/frame0004.png")
    assert np.array_equal(label, idd_run.mask(4) + 1)  # FiftyOne does not show 0
    original = Path(idd_run.uri(4)).read_bytes()
    assert (to / "data/val/007/frame0004.png").read_bytes() == original
    targets = json.loads((to / "mask_targets.json").read_text())
    assert targets["1"] == "road"
    out = capsys.readouterr().out
    assert "left out  1 rows: missing 1" in out
    assert (
        "note: 1 original image could not be read, so it is left out: FiftyOne shows no mask without "
        f"its image: {idd_run.uri(9)} (missing)\n"
    ) in out


def test_original__has_to_be_of_the_masks_size(tmp_path):
    turned = Image.new("RGB", (40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=exif)
    read = read_original_file(ObjectReader(), str(tmp_path / "a.jpg"), (30, 40))
    assert (read.suffix, read.data) == (".jpg", (tmp_path / "a.jpg").read_bytes())
    with pytest.raises(Exception, match="had 40x30 pixels when segmented and has 30x40 now"):
        read_original_file(ObjectReader(), str(tmp_path / "a.jpg"), (40, 30))


# The folder


@pytest.mark.parametrize("format", FORMATS)
def test_export__twice_is_once(format, run, tmp_path):
    to = tmp_path / "x"
    assert command(run, format, to) == 0
    first = snapshot(to)
    assert command(run, format, to) == 0
    assert snapshot(to) == first
    assert not [name for name in first if name.endswith(".tmp")]
    result = json.loads(first["export.json"])["result"]
    assert (result["exported"], result["errors"]) == (98, {"missing": 1, "truncated": 1})


def test_export__completes_an_interrupted_one(run, tmp_path):
    to = tmp_path / "x"
    command(run, "png", to)
    before = snapshot(to)
    (to / "index.csv").unlink()
    for image_id in range(40, 60):
        (to / f"masks/{image_id:04d}.png").unlink()
    command(run, "png", to)
    assert snapshot(to) == before


def test_export__refuses_a_foreign_folder(run, tmp_path, capsys):
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("keep")
    assert command(run, "png", foreign) == 2
    assert "is not empty and no export of dinoidd" in capsys.readouterr().err
    assert snapshot(foreign) == {"notes.txt": b"keep"}
    assert command(run, "png", run.out) == 2


def test_export__refuses_the_folder_of_another(run, tmp_path, capsys):
    command(run, "png", tmp_path / "x")
    capsys.readouterr()
    assert command(run, "coco", tmp_path / "x") == 2
    assert "holds another export: format was 'png' and is 'coco'" in capsys.readouterr().err


def test_export__a_file_is_no_folder(run, tmp_path, capsys):
    (tmp_path / "x").write_text("keep")
    assert command(run, "png", tmp_path / "x") == 2
    assert (tmp_path / "x").read_text() == "keep"
    assert str(tmp_path / "x") in capsys.readouterr().err


def test_export__where_and_its_counts(run, tmp_path, capsys):
    to = tmp_path / "x"
    where = "image_id < 10 AND (confidence > 0.55 OR status = 'error')"
    assert command(run, "png", to, "--where", where, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["exported"], result["errors"], result["not_matching"]) == (4, {"missing": 1}, 95)
    assert sorted(index(to)) == [6, 7, 8, 9]


def test_export__where_that_is_no_sql(run, tmp_path):
    with pytest.raises(ConfigError, match=r"--where 'speed > 3' fails: .*speed"):
        export(reader(run), str(tmp_path / "x"), format="png", where="speed > 3")
    assert not (tmp_path / "x").exists()


def test_export__nothing_to_export(run, tmp_path):
    with pytest.raises(ConfigError, match="no mask to export: of 100 rows 2 match"):
        export(reader(run), str(tmp_path / "x"), format="png", where="status = 'error'")
    with pytest.raises(ConfigError) as caught:
        export(reader(run), str(tmp_path / "x"), format="png", where="confidence > 5")
    assert str(caught.value) == (
        "--where 'confidence > 5' matches none of the 100 rows: there is nothing to export"
    )


@pytest.mark.parametrize("format", FORMATS)
def test_export__counts_damaged_masks(format, run, tmp_path, capsys):
    run.edit(5, lambda row: row.update(mask={"bytes": row["mask"]["bytes"][:-9], "path": None}))
    run.edit(6, lambda row: row.update(height=25))
    assert command(run, format, tmp_path / "x") == 1
    assert not {5, 6} & set(index(tmp_path / "x"))
    assert "damaged   2 rows: truncated 1, corrupt 1" in capsys.readouterr().out


def test_export__from_and_to_a_bucket(run, tmp_path, s3: S3):
    bucket = s3.new_bucket()
    output = run.upload(s3.client(), bucket, "runs/1")
    to = f"s3://{bucket}/labels"
    arguments = ["export", output, "--format", "coco", "--to", to]
    arguments += ["--endpoint-url", s3.endpoint_url, "--where", "image_id < 20"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    body = s3.client().get_object(Bucket=bucket, Key="labels/panoptic/0007.png")["Body"].read()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(body)))[..., 0], run.mask(7) + 1)


# Names


def names_of(tmp_path: Path, uris: list[str]) -> list[str]:
    run = hostile_run(tmp_path / "run", uris)
    names = Names.of(reader(run))
    return [names.name(i, uri).stem for i, uri in enumerate(uris)]


@pytest.mark.parametrize(
    ("uri", "stem"),
    [
        ("s3://b/x/plain.jpg", "plain"),
        ("s3://b/x/../../etc/passwd.png", "__/__/etc/passwd"),
        ("s3://b/x//absolute//a.jpg", "absolute/a"),
        ("s3://b/x/a\nb\tc\x00.png", "a_b_c_"),
        ("s3://b/x/50% #1?.jpg", "50___1_"),
        ("s3://b/x/back\\slash:c.jpg", "back_slash_c"),
        ("s3://b/x/दिल्ली/ü.png", "दिल्ली/ü"),
        ("s3://b/x/\u202egnp.exe.jpg", "_gnp.exe"),
        ("s3://b/x/.hidden/-rf.jpg", "_hidden/_rf"),
        ("s3://b/x/con/aux.png", "_con/_aux"),
        ("s3://b/x/folder.png/a.jpg", "folder.png_/a"),
        ("s3://b/x/no suffix", "no_suffix"),
        ("s3://b/x/leftImg8bit/..val/0/f_leftImg8bit.png", "__val/0/f"),
    ],
)
def test_names__are_safe(uri, stem, tmp_path):
    assert names_of(tmp_path, [uri, "s3://b/x/zzz.jpg", "s3://b/x/  .png"])[0] == stem


def test_names__of_any_length_fit(tmp_path):
    uris = ["s3://b/" + "y" * 900 + ".jpg", "s3://b/" + "y" * 901 + ".jpg"]
    uris += ["s3://b/" + "ü/" * 400 + f"{i}.jpg" for i in range(2)]
    found = names_of(tmp_path, uris)
    assert len(set(found)) == 4
    assert all(len(part.encode()) <= 150 for stem in found for part in stem.split("/"))
    assert all(len(stem.encode()) < 700 for stem in found)


def test_names__that_collide_get_the_image_id(tmp_path):
    uris = ["s3://b/a/1.jpg", "s3://b/a/1.png", "s3://b/A/1.JPG", "s3://b/a/2.jpg", "s3://b/a//2"]
    uris += ["s3://b/x/leftImg8bit/val/0/f_leftImg8bit.png", "s3://b/val/0/f.png"]
    assert names_of(tmp_path, uris) == [
        "a/1~0",
        "a/1~1",
        "A/1~2",
        "a/2~3",
        "a/2~4",
        "val/0/f~5",
        "val/0/f~6",
    ]


def test_names__do_not_depend_on_the_selection(tmp_path):
    run = hostile_run(tmp_path / "run", ["s3://b/1.jpg", "s3://b/1.png", "s3://b/2.jpg"])
    export(reader(run), str(tmp_path / "x"), format="png", where="image_id = 1")
    assert index(tmp_path / "x") == {1: "masks/1~1.png"}


def test_names__of_a_hostile_bucket_stay_inside(tmp_path):
    uris = [f"s3://b/{'../' * n}{name}" for n in range(4) for name in ("a.jpg", "/etc/a.jpg", "~0")]
    run = hostile_run(tmp_path / "run", uris)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    for format in ("png", "coco", "cityscapes"):
        to = tmp_path / "deep" / "x" / format
        export(reader(run), str(to), format=format)
        assert len({f.casefold() for f in index(to).values()}) == len(uris)
    new = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert all(p.is_relative_to(tmp_path / "deep" / "x") for p in new)


# Streaming


def test_read_rows__only_the_groups_that_hold_them(run):
    ids = np.array([2, 63, 99])
    rows = list(read_rows(reader(run), ids, ["uri"]))
    assert [(r["image_id"], r["uri"]) for r in rows] == [(i, run.uri(i)) for i in (2, 63, 99)]


def test_selection__counts_every_row_once(run):
    selection = select_images(reader(run), "confidence > 0.9")
    errors = sum(selection.errors.values())
    assert selection.ids.size + errors + selection.not_matching == 100


def test_threads__keep_order_and_take_items_as_needed():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = map_in_threads(lambda i: i * i, items(), threads=2)
    assert next(results) == 0
    assert len(taken) <= 8
    assert list(results) == [i * i for i in range(1, 100)]


def test_export__refuses_bad_options(run, tmp_path):
    assert command(run, "png", tmp_path / "x", "--workers", "0") == 2
    with pytest.raises(ConfigError, match="unknown format 'tiff'"):
        export(reader(run), str(tmp_path / "x"), format="tiff")
    (tmp_path / "y").mkdir()
    (tmp_path / "y/export.json").write_text("[]")
    with pytest.raises(OutputError, match="is not one of dinoidd's"):
        export(reader(run), str(tmp_path / "y"), format="png")


def test_png__evaluates_as_the_run_itself(idd_run, tmp_path):
    """An exported folder of PNGs is what `evaluate` takes."""
    (tmp_path / "toy.json").write_text(json.dumps(TABLE.to_dict()))
    for image_id in range(20):
        label = tmp_path / f"gtFine/val/007/frame{image_id:04d}_gtFine_labelmine.png"
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(idd_run.mask(image_id), 2, axis=0)).save(label)
    assert command(idd_run, "png", tmp_path / "png") == 0
    results = []
    for predictions in (idd_run.out, tmp_path / "png"):
        args = [
            "--data",
            tmp_path,
            "--predictions",
            predictions,
            "--classes",
            tmp_path / "toy.json",
        ]
        to = tmp_path / "result.json"
        assert main(["evaluate", *map(str, args), "--json", str(to), "--workers", "1"]) == 1
        results.append(json.loads(to.read_text()))
    run, png = results
    assert run["frames"]["without_prediction"] == [
        "007/frame0003 (error row: there is no such file)"
    ]
    assert png["frames"]["without_prediction"] == ["007/frame0003"]
    assert 0 < run["levels"]["toy"]["mean_iou"] < 1
    for key in ("confusion", "levels", "boundary", "drives", "intervals", "problems"):
        assert run[key] == png[key]


def test_cli__progress_on_a_terminal(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert command(run, "png", tmp_path / "labels") == 0
    assert "98/98" in capsys.readouterr().err
