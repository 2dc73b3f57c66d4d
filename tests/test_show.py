from pathlib import Path

import numpy as np
import pytest
from conftest import S3
from PIL import Image
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.cli import main
from dinoidd.errors import ConfigError
from dinoidd.output import show as show_module
from dinoidd.output.draw import MARGIN, Cell, Layout, Share, draw_report
from dinoidd.output.original import read_original
from dinoidd.output.reader import RunReader
from dinoidd.output.show import Grid, show
from dinoidd.output.tails import tails
from dinoidd.storage import ObjectReader, StorageOptions


@pytest.fixture
def run(tmp_path: Path) -> SyntheticOutput:
    run = SyntheticOutput(tmp_path)
    run.write_inputs()
    return run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What was handed to the drawing: title, subtitle, cells, legend, layout."""
    seen: dict = {}

    def draw(**parts: object) -> Image.Image:
        seen.update(parts)
        return draw_report(**parts)

    monkeypatch.setattr(show_module, "draw_report", draw)
    return seen


def picture(run: SyntheticOutput, where: str = "true", grid: str = "4x3", seed: int = 0):
    reader = RunReader(str(run.out), StorageOptions())
    return show(reader, where=where, grid=Grid.parse(grid), seed=seed)


def failure(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    status = main(["show", *map(str, args)])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    return err


def test_show__writes_a_png(run, capsys, tmp_path):
    to = tmp_path / "x.png"
    assert main(["show", str(run.out), "--to", str(to)]) == 0
    image = Image.open(to)
    assert (image.format, image.mode) == ("PNG", "RGB")
    out, err = capsys.readouterr()
    assert (out, err) == (f"{to}: {image.width}x{image.height} pixels\n", "")


def test_show__title_counts_and_grid(run, drawn):
    picture(run, where="confidence >  0.9\nAND status = 'ok'", grid="3x2")
    assert drawn["title"] == "out"
    assert drawn["subtitle"] == (
        "100 images: 98 ok, 2 with errors · 18 where confidence > 0.9 AND status = 'ok' · 6 shown"
    )
    assert (drawn["layout"].columns, len(drawn["cells"])) == (3, 6)


def test_show__same_seed_same_picture(run):
    first, again, other = (np.asarray(picture(run, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_show__sample_is_spread_and_sorted(run, drawn):
    picture(run, where="status = 'ok'")
    names = [c.caption for c in drawn["cells"]]
    assert names == sorted(names)
    assert names != [f"{i:04d}.png" for i in range(12)]


def test_show__images_of_one_name_are_told_apart(tmp_path, drawn):
    run = SyntheticOutput(tmp_path, images=3, errors={2: ("missing", "gone")})
    for image_id, name in enumerate(("1/left/same.jpg", "2/left/same.jpg", "2/left/other.jpg")):
        run.edit(image_id, lambda row, name=name: row.update(uri=f"s3://b/{name}"))
    picture(run)
    names = ["1/left/same.jpg", "2/left/same.jpg", "other.jpg"]
    assert [cell.caption for cell in drawn["cells"]] == names


def test_tails__are_as_short_as_can_be():
    assert tails(["/a/x/1.jpg", "/b/x/1.jpg", "/b/x/2.jpg"]) == ["a/x/1.jpg", "b/x/1.jpg", "2.jpg"]
    assert tails(["s3://a/1.jpg", "s3://b/1.jpg"]) == ["a/1.jpg", "b/1.jpg"]
    assert tails(["/1.jpg", "/a/1.jpg"]) == ["/1.jpg", "a/1.jpg"]
    assert tails(["1.jpg", "a/1.jpg"]) == ["1.jpg", "a/1.jpg"]
    assert tails(["/a/1.jpg", "/a/1.jpg"]) == ["1.jpg", "1.jpg"]
    assert tails(["https://h/1.jpg?key=secret", "/a/2.jpg"]) == ["1.jpg", "2.jpg"]
    assert tails([]) == []


def test_show__fewer_matches_than_cells(run, drawn):
    picture(run, where="image_id IN (0, 1)")
    assert [c.caption for c in drawn["cells"]] == ["0000.png", "0001.png"]
    assert [c.detail for c in drawn["cells"]] == ["confidence 0.50", "confidence 0.51"]
    assert drawn["layout"].columns == 2


def test_show__overlay_blends_colour_and_image(run, drawn):
    picture(run, where="image_id = 0")
    (cell,) = drawn["cells"]
    image, overlay = np.asarray(cell.left), np.asarray(cell.right)
    assert image.shape == overlay.shape == (360, 480, 3)
    corner = 0.4 * image[0, 0] + 0.6 * np.array(TABLE.classes[2].color)
    np.testing.assert_allclose(overlay[0, 0], corner, atol=1)


def test_show__legend_has_the_classes_shown_by_share(run, drawn):
    picture(run, where="image_id = 0")
    pixels = run.row(0)["fraction"]
    assert [(s.name, s.color) for s in drawn["legend"]] == [
        ("road", (128, 64, 128)),
        ("sky", (70, 130, 180)),
        ("traffic light", (250, 150, 10)),
    ]
    assert drawn["legend"][0].share == pytest.approx(pixels["road"])
    assert sum(s.share for s in drawn["legend"]) == pytest.approx(1)


def test_show__error_row_is_a_cell_with_the_error(run, drawn):
    picture(run, where="status = 'error'")
    assert drawn["cells"] == [
        Cell(left=f"{k}: {e}", right=None, caption=f"{i:04d}.png", detail="error")
        for i, (k, e) in run.errors.items()
    ]
    assert drawn["legend"] == []


def test_show__image_is_gone(run, drawn):
    Path(run.uri(5)).unlink()
    picture(run, where="image_id IN (4, 5)")
    intact, gone = drawn["cells"]
    assert isinstance(intact.left, Image.Image)
    assert gone.left == f"missing: {run.uri(5)} cannot be read: there is no such file"
    colors = {c for _, c in gone.right.getcolors()}
    assert colors == {TABLE.classes[i].color for i in range(3)}


def test_show__image_is_broken_or_another_one(run, drawn):
    Path(run.uri(5)).write_bytes(b"hello")
    Image.new("RGB", (9, 7)).save(run.uri(6))
    picture(run, where="image_id IN (5, 6)")
    broken, other = (c.left for c in drawn["cells"])
    assert broken == "not_an_image: 5 bytes that start with 68 65 6c 6c 6f"
    assert other == "changed: the image had 32x24 pixels when it was segmented and has 9x7 now"


def test_show__mask_is_broken(run, drawn):
    run.edit(5, lambda row: row["mask"].update(bytes=b"hello"))
    picture(run, where="image_id = 5")
    assert drawn["cells"][0].right == "the mask (5 bytes) is not a PNG"
    assert drawn["legend"] == []


def test_show__exif_rotation(tmp_path, drawn):
    run = SyntheticOutput(tmp_path, images=1, height=32, width=24, errors={})
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: stored 32 wide, seen 24 wide
    stored = Image.new("RGB", (32, 24), "blue")
    stored.paste("red", (0, 0, 8, 24))
    stored.save(run.uri(0), exif=exif)
    picture(run)
    left = drawn["cells"][0].left
    assert left.height > left.width
    assert left.getpixel((left.width // 2, 2)) == (255, 0, 0)  # the left end is the top now


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_read_original__any_mode_is_rgb(tmp_path, mode):
    path = str(tmp_path / "x.tif")
    Image.new(mode, (40, 20)).save(path)
    size, image = read_original(ObjectReader(), path, (20, 20))
    assert (size, image.size, image.mode) == ((40, 20), (20, 10), "RGB")


def test_read_original__16_bits_are_scaled(tmp_path):
    path = str(tmp_path / "x.png")
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(path)
    _, image = read_original(ObjectReader(), path, (4, 4))
    assert image.getpixel((0, 0)) == (128, 128, 128)


def test_read_original__large_jpeg_keeps_its_size(tmp_path):
    path = str(tmp_path / "x.jpg")
    Image.new("RGB", (1600, 800)).save(path)
    size, image = read_original(ObjectReader(), path, (100, 100))
    assert (size, image.size) == ((1600, 800), (100, 50))


def test_draw_report__long_texts_stay_inside():
    words = "a-very-long-word-without-any-space" * 20 + " and then some"
    cells = [Cell(left=words, right=None, caption=words, detail="confidence 0.50")]
    layout = Layout.of(1, 0.75)
    legend = [Share(name=words, color=(9, 9, 9), share=1.0)]
    page = draw_report(words, words, cells, legend, layout)
    border = np.asarray(page.convert("L"))
    assert page.width == layout.width + 2 * MARGIN
    assert (border[:, : MARGIN - 2] == 255).all()
    assert (border[:, -MARGIN + 2 :] == 255).all()


def test_layout__narrow_columns_fit_the_page():
    layout = Layout.of(10, 0.75)
    assert layout.width <= 2400
    assert layout.corner(11) == (layout.cell[0] + 24, layout.cell[1] + 24)


def test_show__unfinished_run(tmp_path, drawn, capsys):
    run = SyntheticOutput(tmp_path, finished=False)
    run.part(64).unlink()
    assert main(["show", str(run.out), "--to", str(tmp_path / "x.png")]) == 0
    assert drawn["subtitle"] == ("64 images so far (unfinished): 63 ok, 1 with errors · 12 shown")
    assert "is not finished (no _SUCCESS): 64 of 100 images so far" in capsys.readouterr().err


def test_show__nothing_matches(run):
    with pytest.raises(ConfigError) as error:
        picture(run, where="confidence > 2")
    assert str(error.value) == "none of the 100 images matches --where 'confidence > 2'"


def test_show__where_is_no_sql(run):
    with pytest.raises(ConfigError) as error:
        picture(run, where="roads > 1")
    assert str(error.value).startswith(
        "--where 'roads > 1' fails: Binder Error: Referenced column \"roads\" not found"
    )


@pytest.mark.parametrize("grid", ["4", "0x3", "4x", "axb", "-1x3", "100x100", "4x3x2"])
def test_grid__bad(grid):
    with pytest.raises(ConfigError) as error:
        Grid.parse(grid)
    assert str(error.value) == (
        f"--grid '{grid}' is not COLUMNSxROWS, such as 4x3, with 1 to 200 cells"
    )


def test_show__not_a_png(run, capsys):
    assert failure(capsys, run.out, "--to", "x.jpg") == (
        "dinoidd show: --to x.jpg: the picture is a PNG, name it .png\n"
    )


def test_show__unwritable(run, capsys, tmp_path):
    to = tmp_path / "nowhere" / "x.png"
    assert failure(capsys, run.out, "--to", to) == (
        f"dinoidd show: {to} cannot be written: No such file or directory\n"
    )


def test_show__s3(run, s3: S3, drawn, tmp_path):
    bucket = s3.new_bucket()
    uri = run.upload(s3.client(), bucket, "runs/a")
    to = tmp_path / "x.png"
    assert main(["show", uri, "--to", str(to), "--endpoint-url", s3.endpoint_url]) == 0
    assert drawn["title"] == "a"
    assert to.stat().st_size


def test_show__an_image_as_thin_as_a_thread(run, drawn):
    Image.new("RGB", (4000, 1)).save(run.uri(5))
    picture(run, where="image_id = 5")
    assert "4000x1" in drawn["cells"][0].left
