"""Parts of a listing: a condition in SQL, a sample, several inputs."""

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from segment_runs import command

from dinoidd.data import selection
from dinoidd.data.index import Origin, index_origin
from dinoidd.data.manifest import FOLDER, read_manifest_info, read_rows, write_manifest
from dinoidd.data.selection import Listed, Selection, sampled, select_images
from dinoidd.errors import ConfigError, InputError
from dinoidd.storage import ObjectInfo, Store

IMAGES = [
    ObjectInfo(uri="s3://b/drive-1/front/0001.jpg", size=100, etag="a"),
    ObjectInfo(uri="s3://b/drive-1/front/0002.JPG", size=200, etag="b"),
    ObjectInfo(uri="s3://b/drive-1/rear/0001.png", size=None),
    ObjectInfo(uri="/data/a'b/.hidden", size=400),
    ObjectInfo(uri="/data/ü #1?.tar.gz", size=500),
]


def chosen(where: str | None = None, **selection: int) -> list[int]:
    found = select_images(IMAGES, Selection(where=where, **selection))
    return [IMAGES.index(image) for image in found]


@pytest.mark.parametrize(
    ("where", "fitting"),
    [
        ("true", [0, 1, 2, 3, 4]),
        ("size > 100", [1, 3, 4]),
        ("size > 100 OR size IS NULL", [1, 2, 3, 4]),
        ("suffix = '.jpg'", [0, 1]),
        ("suffix = ''", [3]),
        ("suffix = '.gz'", [4]),
        ("name = '0001.png'", [2]),
        ("name LIKE '%#1?%'", [4]),
        ("folder = 's3://b/drive-1/front'", [0, 1]),
        ("folder LIKE '%a''b'", [3]),
        ("etag IN ('b', 'c')", [1]),
        ("uri LIKE 's3://%' AND size < 200 -- small ones", [0]),
        ("regexp_matches(name, '^0+1')", [0, 2]),
    ],
)
def test_where__picks(where: str, fitting: list[int]) -> None:
    assert chosen(where) == fitting


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("sise > 1", 'Referenced column "sise" not found in FROM clause!'),
        ("size >", "syntax error"),
        (" ", "is not one condition, as after WHERE in SQL"),
        ("true) LIMIT (2", "is not one condition, as after WHERE in SQL"),
        ("name", "Could not convert string"),
        ("sum(size) > 1", "WHERE clause cannot contain aggregates!"),
        ("size > (SELECT avg(size) FROM listing)", "holds a SELECT: a condition looks at one"),
        ("EXISTS (FROM read_csv('/etc/passwd'))", "holds a SELECT: a condition looks at one"),
        ("1=1) UNION (SELECT 1 WHERE 1=1", "is not one condition, as after WHERE in SQL"),
        ("true); DROP TABLE listing; SELECT (1", "give one SELECT"),
    ],
)
def test_where__mistakes_are_sentences(where: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(where)
    told = str(caught.value)
    assert told.startswith(f"--where {where!r}")
    assert words in told
    assert "\n" not in told


def test_where__no_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    for where in (f"read_text('{secret}') IS NOT NULL", f"uri IN (FROM '{secret}')"):
        with pytest.raises(ConfigError):
            chosen(where)
    connection = duckdb.connect(config=selection._CONFIG)  # whatever the condition is
    with pytest.raises(duckdb.PermissionException):
        connection.sql(f"FROM read_text('{secret}')")


def test_where__nothing_fits() -> None:
    with pytest.raises(InputError) as caught:
        chosen("size > 10000")
    assert str(caught.value) == "none of the 5 images fits --where 'size > 10000'"


def test_where__more_than_a_batch() -> None:
    images = (ObjectInfo(uri=f"/{i}.png", size=i) for i in range(20_000))
    found = select_images(images, Selection(where="size % 1000 = 7"))
    assert [image.size for image in found] == list(range(7, 20_000, 1000))


def test_sample__every_set_is_as_likely() -> None:
    """Of 5 images 2: ten pairs, each within five standard deviations of its expectation."""
    pairs = Counter(tuple(sampled(range(5), 5, 2, seed)) for seed in range(5000))
    assert len(pairs) == 10
    deviation = (5000 * 0.1 * 0.9) ** 0.5
    assert all(abs(count - 500) < 5 * deviation for count in pairs.values())
    assert all(low < high for low, high in pairs)


def test_sample__its_seed_decides() -> None:
    first = chosen(sample=3, seed=1)
    assert first == chosen(sample=3, seed=1)
    assert len({tuple(chosen(sample=3, seed=seed)) for seed in range(20)}) > 3
    assert chosen(sample=9) == [0, 1, 2, 3, 4]
    assert chosen("suffix = '.jpg'", sample=1) in ([0], [1])


def test_sample__is_not_in_memory() -> None:
    def images() -> Iterator[ObjectInfo]:
        for i in range(60_000):
            yield ObjectInfo(uri=f"s3://bucket/drive/{i:09d}.jpg", size=i, etag=f"{i:032x}")

    told: list[int] = []
    tracemalloc.start()
    found = select_images(images(), Selection(sample=40_000), told.append)
    last, count = -1, 0
    for image in found:
        assert image.size is not None
        assert image.size > last
        last, count = image.size, count + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert told[-1] == 60_000
    assert peak < 8e6, "40,000 images in a list would take 14 MB"


def test_listed__counts_what_goes_through() -> None:
    listed = Listed()
    assert list(listed.counted(IMAGES)) == IMAGES
    assert (listed.rows, listed.bytes) == (5, 1200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.png").write_bytes(bytes(i + 1))
    (tmp_path / "b" / "notes.md").touch()
    return tmp_path


def test_index__several_inputs(folder: Path) -> None:
    out = Store.open(str(folder / "out"))
    inputs = tuple(str(folder / name) for name in ("b", "a", "b"))
    info = index_origin(Origin(inputs=inputs), out)
    assert (info.input, info.more_inputs, info.rows) == (inputs[0], [inputs[1], inputs[2]], 30)
    assert (info.skipped, info.listed, info.selection) == ({".md": 2}, None, {})
    assert read_manifest_info(out.child(FOLDER)) == info
    uris = read_rows(out.child(FOLDER), 0, 30)["uri"].to_pylist()
    assert uris == [f"{uri}/{i}.png" for uri in inputs for i in range(10)]


def test_index__a_misspelt_input_is_told_before_anything_is_written(folder: Path) -> None:
    out = Store.open(str(folder / "out"))
    with pytest.raises(InputError, match=r"there is no file or folder .*/c"):
        index_origin(Origin(inputs=(str(folder / "a"), str(folder / "c"))), out)
    assert not out.is_folder()


def test_index__selection(folder: Path) -> None:
    ran = command(
        *("index", "--input", folder / "a", folder / "b", "--output", folder / "out"),
        *("--where", "size > 4", "--sample", 5, "--sample-seed", 3),
    )
    assert ran.status == 0, ran.err
    assert "images    5 of 20" in ran.out
    info = json.loads((folder / "out" / "manifest" / "manifest.json").read_text())
    assert info["selection"] == {"where": "size > 4", "sample": 5, "sample_seed": 3}
    assert (info["rows"], info["listed"], info["listed_bytes"]) == (5, 20, 110)
    sizes = read_rows(Store.open(str(folder / "out" / "manifest")), 0, 5)["size"].to_pylist()
    assert min(sizes) > 4
    ran = command("index", "--input", folder / "a", "--output", folder / "x", "--sample", 0)
    assert (ran.status, ran.err) == (2, "dinoidd index: --sample 0: at least 1 image is needed\n")
    ran = command("index", "--input", folder / "a", "--output", folder / "x", "--where", "sizes")
    assert ran.status == 2
    assert "(columns: uri, size, etag, name, suffix, folder) fails: " in ran.err
    assert not (folder / "x").exists()


def test_differences__names_each() -> None:
    store = Store.open("memory://test-selection")
    first = Origin(inputs=("/a",), selection=Selection(sample=3))
    folder = store.child(FOLDER)
    about = {"selection": first.selection.to_dict()}
    info = write_manifest(folder, IMAGES, input_uri="/a", counts={}, about=lambda: about)
    assert first.differences(info) == []
    other = Origin(inputs=("/a", "/b"), selection=Selection(where="true", sample=4))
    assert other.differences(info) == [
        "from /a, not from /a /b",
        "with --where none, not 'true'",
        "with --sample 3, not 4",
    ]
