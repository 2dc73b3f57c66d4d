import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import S3
from PIL import Image
from synthetic_output import TABLE, SyntheticOutput

from dinoidd.cli import main
from dinoidd.errors import ConfigError
from dinoidd.exports.names import common_folder
from dinoidd.output.query import open_query
from dinoidd.output.reader import RunReader
from dinoidd.report import ReportOptions, build, build_report
from dinoidd.report.charts import histogram
from dinoidd.report.collect import collect
from dinoidd.report.facts import speed
from dinoidd.report.figures import BINS, Figures, Measure
from dinoidd.report.galleries import Galleries, Pick, choose_galleries, pick_apart
from dinoidd.report.markup import escape, percent
from dinoidd.report.sections import class_section
from dinoidd.storage import StorageOptions

ATTACK = "<script>document.title = 'broken in'</script>"
VOID = {"meta", "img", "input"}


class Named(SyntheticOutput):
    """Every image has the name that the test gives it."""

    name: Callable[[int], str]

    def uri(self, image_id: int) -> str:
        return f"{self.folder}/in/{type(self).name(image_id)}"


def named_run(folder: Path, name: Callable[[int], str], **settings: object) -> SyntheticOutput:
    kind = type("Run", (Named,), {"name": staticmethod(name)})
    return kind(folder, **settings)


@pytest.fixture
def run(tmp_path: Path) -> SyntheticOutput:
    run = SyntheticOutput(tmp_path)
    run.write_inputs()
    return run


def reader(run: SyntheticOutput) -> RunReader:
    return RunReader(str(run.out), StorageOptions())


def figures(run: SyntheticOutput) -> Figures:
    with open_query(reader(run)) as connection:
        return collect(connection, TABLE)


def galleries(run: SyntheticOutput, sample: int = 0, seed: int = 0) -> Galleries:
    with open_query(reader(run)) as connection:
        collect(connection, TABLE)
        return choose_galleries(connection, TABLE, ok=98, sample=sample, seed=seed)


def page_of(run: SyntheticOutput, **options: object) -> str:
    return build_report(reader(run), ReportOptions(**options))


class Page(HTMLParser):
    """What a page holds: text, tags in order, attributes; tags have to be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


# Figures


def test_figures__are_those_of_the_masks(run):
    found = figures(run)
    masks = [run.mask(i) for i in range(100) if i not in run.errors]
    assert (found.images, found.ok) == (100, 98)
    for class_id, info in enumerate(found.classes):
        shares = [(mask == class_id).mean() for mask in masks]
        assert info.pixels == sum((mask == class_id).sum() for mask in masks)
        assert info.images == np.count_nonzero(shares)
        assert info.largest == pytest.approx(max(shares))
    assert found.sizes == [(32, 24, 98)]
    confidence = found.measures[0]
    values = [0.5 + i % 50 / 100 for i in range(100) if i not in run.errors]
    assert confidence.mean == pytest.approx(np.mean(values))
    assert confidence.quantiles == pytest.approx(np.quantile(values, [0.05, 0.5, 0.95]), abs=0.02)
    assert sum(confidence.bins) == 98


def test_figures__errors_come_with_examples(run):
    run.edit(70, lambda row: row.update(error_kind="missing", error="gone"))
    (kind,) = figures(run).errors
    assert (kind.kind, kind.images) == ("missing", 2)
    assert kind.examples == [(run.uri(3), "there is no such file"), (run.uri(70), "gone")]


def test_figures__notes_are_counted(run):
    run.edit(5, lambda row: row.update(note="first of 2 frames"))
    assert figures(run).notes == [("first of 2 frames", 1)]


@pytest.mark.parametrize("folder", ["plain", "wild[card]"])  # DuckDB reads the files, or Arrow
def test_figures__read_no_mask(folder, tmp_path):
    run = SyntheticOutput(tmp_path / folder)
    before = figures(run), galleries(run)
    for start in (0, 64):
        wipe_masks(run.part(start))
    assert (figures(run), galleries(run)) == before
    with pytest.raises(OSError, match=r"."):
        pq.read_table(run.part(0), columns=["mask"])


def wipe_masks(path: Path) -> None:
    """Overwrite the pages of the masks in a file, nothing else."""
    metadata = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if column.path_in_schema == "mask.bytes":
                starts = (column.dictionary_page_offset, column.data_page_offset)
                start = min(s for s in starts if s is not None)
                data[start : start + column.total_compressed_size] = b"\xff" * (
                    column.total_compressed_size
                )
    path.write_bytes(data)


# Folders and time


def test_folders__one_line_each(tmp_path):
    run = named_run(tmp_path, lambda i: f"val/{i // 40:03d}/{i:04d}.png")
    folders = figures(run).folders
    assert folders is not None
    lines = [(s.label, s.images, s.errors) for s in folders.slices]
    assert lines == [("000", 40, 1), ("001", 40, 1), ("002", 20, 0)]
    ok = [i for i in range(40) if i not in run.errors]
    assert folders.slices[0].pixels[2] == sum((run.mask(i) == 2).sum() for i in ok)
    assert folders.slices[2].confidence == pytest.approx(
        np.mean([0.8 + i / 100 for i in range(20)])
    )


@pytest.mark.parametrize("name", ["{0:04d}.png", "{0}/image.png"])
def test_folders__that_say_nothing(name, tmp_path):
    assert figures(named_run(tmp_path, name.format)).folders is None


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("cam_2026-01-31_10-{0:02d}-00.jpg", "2026-01-31 10:00"),
        ("20260131T10{0:02d}00123.jpg", "2026-01-31 10:00"),
        ("2026-01-31 10.{0:02d}.00 front.jpg", "2026-01-31 10:00"),
        ("frame-17698572{0:02d}.jpg", "11:00:00"),
        ("17698572{0:02d}123.jpg", "11:00:00"),
        ("17698572{0:02d}123456789.png", "11:00:00"),
    ],
)
def test_times__are_read_from_names(name, start, tmp_path):
    run = named_run(tmp_path, lambda i: name.format(i % 60), images=60, errors={})
    times = figures(run).times
    assert times is not None
    assert times.slices[0].label == start
    assert sum(s.images for s in times.slices) == times.images == 60
    assert len(times.slices) == 60


@pytest.mark.parametrize(
    "name",
    [
        "{0:04d}.png",
        "frame{0:010d}.png",
        "2026-13-45_99-{0:02d}-00.png",
        "2026-01-31_10-00-00_{0}.png",
    ],
)
def test_times__are_not_guessed(name, tmp_path):
    assert figures(named_run(tmp_path, name.format)).times is None


def test_common_folder__of_any_uris():
    assert common_folder("s3://b/a/1.jpg", "s3://b/a/2.jpg") == "s3://b/a/"
    assert common_folder("s3://b/ab/1.jpg", "s3://b/ac/2.jpg") == "s3://b/"
    assert common_folder("/a/1.jpg", "s3://b/2.jpg") == ""
    assert common_folder("/a/1.jpg", "/a/1.jpg") == "/a/"


# Galleries


def test_galleries__rank_by_columns(run):
    found = galleries(run)
    assert [p.image_id for p in found.least_confident.picks[:4]] == [0, 50, 1, 51]
    sky = next(g for g in found.of_classes if g.title == "sky")
    best = max((run.mask(i) == 2).mean() for i in range(100) if i not in run.errors)
    assert sky.picks[0].share == pytest.approx(best)
    assert [g.title for g in found.of_classes] == ["road", "traffic light", "sky"]


def test_galleries__of_a_large_run_come_from_a_fair_sample(run):
    first, again = galleries(run, sample=20), galleries(run, sample=20)
    other = galleries(run, sample=20, seed=1)
    assert (first.ranked, first) == (20, again)
    assert first.least_confident != other.least_confident
    everything = galleries(run)
    assert everything.ranked == 98
    assert first.least_confident != everything.least_confident


def test_pick_apart__leaves_neighbours_out_while_there_are_others():
    def candidate(image_id: int, folder: str = "a") -> dict:
        return {"id": image_id, "folder": folder, "share": 0.5}

    candidates = [candidate(i) for i in (10, 11, 12, 40)] + [candidate(13, "b")]
    assert [p.image_id for p in pick_apart(candidates, 3)] == [10, 40, 13]
    assert [p.image_id for p in pick_apart(candidates[:3], 2)] == [10, 11]
    assert pick_apart(candidates[:1], 4) == [Pick(10, 0.5)]


# Markup and charts


def test_escape__shows_what_cannot_be_seen():
    assert escape('<a href="x">&\'') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;"
    assert escape("a\nb\u202ec\ud800") == "a\\u{a}b\\u{202e}c\\u{d800}"
    assert escape("दिल्ली 100 %") == "दिल्ली 100 %"


def test_percent__keeps_small_shares():
    shares = [1, 0.999, 0.123, 0.0042, 0.00001, 0]
    assert [percent(s) for s in shares] == [
        "100 %",
        "99.9 %",
        "12.3 %",
        "0.42 %",
        "<0.01 %",
        "0.0 %",
    ]


@pytest.mark.parametrize("held", [[0], [BINS - 1], [0, BINS - 1], [100, 111]])
def test_histogram__has_every_image(held):
    bins = [3 if i in held else 0 for i in range(BINS)]
    svg = histogram(Measure(name="margin", mean=0.5, quantiles=(0.1, 0.5, 0.9), bins=bins))
    counts = [int(n) for n in re.findall(r": (\d+)</title>", svg)]
    assert sum(counts) == 3 * len(held)
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"', svg)]
    assert max(heights) == pytest.approx(120)


# The page


def test_page__is_whole_and_needs_nothing(run):
    page = Page(page_of(run, title="Drive 42"))
    assert "Drive 42" in page.text
    assert {i["src"].partition(",")[0] for i in page.all("img")} == {
        "data:image/webp;base64",
        "data:image/png;base64",
    }
    assert not page.all("link")
    links = {a["href"] for a in page.all("a")}
    anchors = {"#" + attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert links <= anchors
    assert all("alt" in image for image in page.all("img"))
    assert "The run is not finished" not in page.text


def test_page__classes_are_those_seen_on_one_scale(run):
    found = figures(run)
    table = class_section(found)
    assert "Never seen: rail track." in page_of(run)
    assert "rail track" not in table
    seen = [info for info in found.classes if info.images]
    assert re.findall(r'<a href="#class-(\d)">', table) == ["0", "1", "2"]
    widths = [float(w) for w in re.findall(r'style="width:([\d.]+)%', table)]
    shares = [(info.pixels / found.pixels, info.images / found.ok) for info in seen]
    assert widths == [round(100 * share, 2) for pair in shares for share in pair]


def test_page__pictures_have_words(run):
    page = Page(page_of(run))
    alts = [image["alt"] for image in page.all("img") if image["class"] == "image"]
    assert alts[0].startswith("0000.png: road ")
    assert all(re.match(r"\d{4}\.png: (road|sky) [\d.]+ %", alt) for alt in alts)


def test_page__hostile_names_stay_text(tmp_path):
    run = named_run(tmp_path, lambda i: f"{ATTACK}/\" onload='x'\n\u202e{i}.jpg")
    run.edit(3, lambda row: row.update(error_kind=ATTACK, error=f"{ATTACK} <img src=x>"))
    run.edit(4, lambda row: row.update(note=ATTACK))
    (run.out / "run.json").write_text(
        json.dumps({"run_id": ATTACK, "config": {ATTACK: "\ud800"}, "identity": [], "started": 7})
    )
    html = page_of(run, title=ATTACK)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert ATTACK not in html
    assert ATTACK in page.text
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    html.encode()


def test_page__stays_below_its_limit(run, monkeypatch):
    whole = len(page_of(run))
    monkeypatch.setattr(build, "PAGE_LIMIT", 6000)
    page = page_of(run)
    assert len(page) < whole
    shown = sum(len(i["src"]) for i in Page(page).all("img"))
    assert 3000 < shown <= 6000
    assert "more are left out: the page is full." in page


def test_page__without_originals_shows_masks(tmp_path):
    run = SyntheticOutput(tmp_path)
    page = Page(page_of(run))
    assert {image["class"] for image in page.all("img")} == {"mask"}
    assert all(image["alt"].startswith("mask: ") for image in page.all("img"))
    assert "missing: " in page.text


def test_page__an_original_of_another_size_is_not_shown(run):
    Image.new("RGB", (10, 10)).save(run.uri(0))
    assert "the image has 10x10 pixels now" in Page(page_of(run)).text


def test_page__a_damaged_mask_is_told(run):
    run.edit(0, lambda row: row.update(mask={"bytes": row["mask"]["bytes"][:-8], "path": None}))
    assert "is a damaged PNG" in Page(page_of(run)).text


def test_page__of_errors_alone(tmp_path):
    run = SyntheticOutput(tmp_path, images=4, errors=dict.fromkeys(range(4), ("missing", "gone")))
    page = Page(page_of(run))
    assert page.all("img") == []
    assert "100 %" in page.text
    assert "Least confident images" not in page.text


def test_page__of_an_unfinished_run_with_random_weights(tmp_path):
    run = SyntheticOutput(tmp_path, finished=False)
    run.write_run_info()
    info = {"identity": {"model weights": "random, seed 0"}, "versions": {"ray": "2.60"}}
    (run.out / "run.json").write_text(json.dumps(info))
    text = Page(page_of(run)).text
    assert "The run is not finished" in text
    assert "The model's weights are random: the masks mean nothing." in text
    assert "ray 2.60" in text


# The command


@pytest.mark.parametrize(("seconds", "told"), [(12.6, None), (40.0, 802.6)])
def test_speed__of_a_moment_is_not_told(seconds, told, run):
    path = run.out / "run.json"
    session = {"seconds": seconds, "startup_seconds": 12.5, "steady_images_per_second": 802.6}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"summary": {"session": session}}))
    assert speed(reader(run)) == told


def test_report__writes_the_file(run, tmp_path, capsys):
    to = tmp_path / "r.html"
    assert main(["report", str(run.out), "--to", str(to), "--title", "A & B"]) == 0
    assert "<title>A &amp; B</title>" in to.read_text()
    assert re.fullmatch(rf"{to}: 0\.\d MB\n", capsys.readouterr().out)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_report__from_a_bucket(run, tmp_path, s3: S3):
    output = run.upload(s3.client(), s3.new_bucket(), "runs/1")
    arguments = ["report", output, "--to", str(tmp_path / "r.html")]
    assert main([*arguments, "--endpoint-url", s3.endpoint_url]) == 0
    assert "98" in Page((tmp_path / "r.html").read_text()).text


def test_report__refuses_bad_options(run, tmp_path, capsys):
    assert main(["report", str(run.out), "--to", str(tmp_path / "r.pdf")]) == 2
    assert "name it .html" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--sample -1"):
        ReportOptions(sample=-1)
    assert main(["report", str(run.out), "--to", str(tmp_path / "no" / "r.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


# In a browser


def browse(page: Path, *options: str) -> tuple[str, list[str]]:
    """The page's DOM after its script ran, and the lines of the browser's console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is not installed: apt-get install chromium"
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--enable-logging=stderr", "--hide-scrollbars"),
        *(f"--user-data-dir={page.parent / 'profile'}", *options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
def test_browser__runs_the_script_without_complaint(run, tmp_path):
    (tmp_path / "r.html").write_text(page_of(run))
    dom, console = browse(tmp_path / "r.html", "--dump-dom")
    assert console == []
    page = Page(dom)
    assert page.tags[0][1]["data-ready"] == "true"
    assert {b.get("id") for b in page.all("button")} >= {"theme"}
    assert [i["type"] for i in page.all("input")] == ["range"]
    assert len(page.all("button")) == 1 + 4  # the theme, and four columns to sort by


@pytest.mark.slow
def test_browser__hostile_names_run_nothing(tmp_path):
    run = named_run(tmp_path, lambda i: f"{ATTACK}/\"><img src=x onerror='{ATTACK}'>{i}.jpg")
    (tmp_path / "r.html").write_text(page_of(run, title="calm"))
    dom, console = browse(tmp_path / "r.html", "--dump-dom")
    assert "<title>calm</title>" in dom
    assert console == []
    # The policy is a second wall: the same attack, not escaped, is refused and told of.
    (tmp_path / "r.html").write_text(
        page_of(run, title="calm").replace("<main>", f"<main>{ATTACK}")
    )
    dom, console = browse(tmp_path / "r.html", "--dump-dom")
    assert "<title>calm</title>" in dom
    assert "Content Security Policy" in console[0]


@pytest.mark.slow
def test_browser__light_and_dark(run, tmp_path):
    (tmp_path / "r.html").write_text(page_of(run))
    brightness = {}
    for name, options in {
        "light": ["--blink-settings=preferredColorScheme=1"],
        "dark": ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"],
    }.items():
        shot = tmp_path / f"{name}.png"
        browse(tmp_path / "r.html", f"--screenshot={shot}", "--window-size=1280,2400", *options)
        image = Image.open(shot).convert("L")
        assert image.size == (1280, 2400)
        brightness[name] = np.median(np.asarray(image))
    assert brightness["light"] > 220
    assert brightness["dark"] < 40
