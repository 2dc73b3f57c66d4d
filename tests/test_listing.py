"""Listings: folders, single images, globs and lists, on a local folder and on S3."""

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import S3

from dinoidd.data.listing import glob_regex, list_images, suffix_of
from dinoidd.errors import InputError, StorageError
from dinoidd.storage import ObjectReader, Store

FILES = [
    "a.jpg",
    "B.JPEG",
    "notes.md",
    "noext",
    ".hidden.png",
    "_under.png",
    "day/1.png",
    "day/2.tiff",
    "day/night/3.webp",
    "day/night/._3.webp",
    "day/.cache/4.png",
    "odd/x[1]*?.png",
    "odd/x1a.png",
]


@pytest.fixture
def tree(store: Store) -> Store:
    """The folder of FILES."""
    for name in FILES:
        store.write_bytes(name, name.encode())
    return store


def listed(store: Store, uri: str, counts: Counter[str] | None = None) -> list[str]:
    """Paths below the store of what an input lists."""
    images = list_images(uri, store.options, counts=counts)
    return sorted(info.uri.removeprefix(f"{store.uri}/") for info in images)


def test_folder__images_by_suffix_and_the_rest_counted(tree: Store) -> None:
    counts: Counter[str] = Counter()
    assert listed(tree, tree.uri + "/", counts) == [
        "B.JPEG",
        "_under.png",
        "a.jpg",
        "day/1.png",
        "day/2.tiff",
        "day/night/3.webp",
        "odd/x1a.png",
        "odd/x[1]*?.png",
    ]
    assert counts == {"(hidden)": 3, ".md": 1, "(no suffix)": 1}


def test_folder__sizes_uris_and_etags_are_usable(tree: Store) -> None:
    reader = ObjectReader(tree.options)
    for info in list_images(tree.uri, tree.options):
        assert len(reader.read(info.uri)) == info.size
        assert (info.etag is not None) == tree.uri.startswith("s3://")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("day/*", ["day/1.png", "day/2.tiff"]),
        ("day/?.png", ["day/1.png"]),
        ("**/*.png", ["_under.png", "day/1.png", "odd/x1a.png", "odd/x[1]*?.png"]),
        ("day/**", ["day/1.png", "day/2.tiff", "day/night/3.webp"]),
        ("d*/n*/[0-3].webp", ["day/night/3.webp"]),
        ("day/[!1].*", ["day/2.tiff"]),
        ("odd/x1*", ["odd/x1a.png"]),
        ("odd/x[1]*?.png", ["odd/x[1]*?.png"]),  # exists as it stands
        ("odd/x[1]*.png", ["odd/x1a.png"]),
        (".hid*.png", [".hidden.png"]),
        ("day/.*/*.png", ["day/.cache/4.png"]),
    ],
)
def test_glob(tree: Store, pattern: str, expected: list[str]) -> None:
    assert listed(tree, tree.uri_of(pattern)) == expected


def test_glob__left_out_by_suffix_only_what_fits(tree: Store) -> None:
    counts: Counter[str] = Counter()
    with pytest.raises(InputError, match=r"no\* holds no image: there are only 1 \S+"):
        listed(tree, tree.uri_of("no*"), counts)
    assert counts == {".md": 1, "(no suffix)": 1}


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**/a", "a", True),
        ("**/a", "x/y/a", True),
        ("x/**/a", "x/a", True),
        ("x**a", "x/y/a", True),
        ("[]]", "]", True),
        ("[^a]", "b", True),
        ("[!a]", "/", False),
        ("[a", "[a", True),
        ("a+(b)", "a+(b)", True),
        ("[a-c]", "-", False),
        ("[\\d]", "1", False),
        ("*", "a\nb", True),
    ],
)
def test_glob_regex(pattern: str, path: str, fits: bool) -> None:
    assert bool(glob_regex(pattern).fullmatch(path)) == fits


def test_glob__that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="makes no sense"):
        list(list_images(f"{tmp_path}/[z-a].png"))
    with pytest.raises(InputError, match="name of a bucket cannot be a pattern"):
        list(list_images("s3://buck*"))


def test_single_image(tree: Store) -> None:
    assert listed(tree, tree.uri_of("B.JPEG")) == ["B.JPEG"]
    with pytest.raises(InputError, match=r"notes\.md is neither an image .* nor a list"):
        listed(tree, tree.uri_of("notes.md"))


def test_text_list__order_comments_and_relative_entries(tree: Store) -> None:
    lines = ["# a comment", "", "day/1.png", "notes.md", "day/1.png", "day/../a.jpg", "  x#y.png "]
    lines += ["/absolute/z.png", "s3://other/a b.png"]
    tree.write_bytes("list.txt", ("\ufeff" + "\r\n".join(lines)).encode())
    images = list(list_images(tree.uri_of("list.txt"), tree.options))
    relative = ["day/1.png", "notes.md", "day/1.png", "a.jpg", "x#y.png"]
    expected = [tree.uri_of(name) for name in relative]
    assert [i.uri for i in images] == [*expected, "/absolute/z.png", "s3://other/a b.png"]
    assert {(i.size, i.etag) for i in images} == {(None, None)}


def test_csv_list__columns(tree: Store) -> None:
    tree.write_bytes("l.csv", b'id,size,image,etag\n1,5,a.jpg,e1\n\n2,,"day/1,2.png",\n')
    images = list(list_images(tree.uri_of("l.csv"), tree.options))
    assert [(i.uri, i.size, i.etag) for i in images] == [
        (tree.uri_of("a.jpg"), 5, "e1"),
        (tree.uri_of("day/1,2.png"), None, None),
    ]


def test_parquet_list__columns(tree: Store) -> None:
    uris = pa.array([f"{n}.png" for n in range(10_000)]).dictionary_encode()
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"url": uris, "size": pa.array(range(10_000), pa.int32())}), buffer)
    tree.write_bytes("l.parquet", buffer.getvalue().to_pybytes())
    images = list(list_images(tree.uri_of("l.parquet"), tree.options))
    assert len(images) == 10_000
    assert (images[-1].uri, images[-1].size) == (tree.uri_of("9999.png"), 9_999)


def _parquet(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("l.txt", b"# nothing\n", "holds no image: it is empty"),
        ("l.txt", b"a\xff.png\n", "cannot be read as a txt list"),
        ("l.txt", b"../" * 60 + b"a.png", "leads out of the bucket"),
        ("l.csv", b"", "has no column uri or image or path or url: its columns are none"),
        ("l.csv", b"id,file\n1,a.png\n", "its columns are id, file"),
        ("l.csv", b"uri\n\n,\n", "entry 1 of .* has no URI"),
        ("l.csv", b"uri,size\na.png,big\n", "'big' in column 'size'"),
        ("l.parquet", b"PAR1", "cannot be read as a parquet list"),
        ("l.parquet", _parquet(pa.table({"image": [b"x"]})), "holds binary, not text"),
        ("l.parquet", _parquet(pa.table({"uri": ["a", None]})), "entry 2 of .* has no URI"),
    ],
)
def test_list__that_cannot_be_used(s3: S3, name: str, data: bytes, says: str) -> None:
    store = Store.open(f"s3://{s3.new_bucket()}/lists", s3.options)
    store.write_bytes(name, data)
    with pytest.raises(InputError, match=says):
        list(list_images(store.uri_of(name), s3.options))


def test_input__that_is_not_there(tree: Store) -> None:
    for uri in (tree.child("nowhere").uri, tree.uri_of("a.jpg") + "/"):
        with pytest.raises(InputError, match="there is no file or folder"):
            listed(tree, uri)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere, where"):
        listed(tree, tree.child("nowhere").uri_of("*.png"))


def test_input__without_images_says_what_was_seen(store: Store) -> None:
    for name in ("a.md", "b.md", "c.json"):
        store.write_bytes(name, b"")
    with pytest.raises(InputError, match=r"holds no image: there are only 2 \.md, 1 \.json$"):
        listed(store, store.uri)


def test_input__bucket_root_and_missing_bucket(s3: S3) -> None:
    bucket = s3.new_bucket()
    with pytest.raises(InputError, match="it is empty"):
        list(list_images(f"s3://{bucket}", s3.options))
    s3.client().put_object(Bucket=bucket, Key="x.png", Body=b"1")
    assert [i.uri for i in list_images(f"s3://{bucket}/", s3.options)] == [f"s3://{bucket}/x.png"]
    assert [i.uri for i in list_images(f"s3://{bucket}/*", s3.options)] == [f"s3://{bucket}/x.png"]
    for uri in ("s3://no-such-bucket", "s3://no-such-bucket/a/b", "s3://no-such-bucket/*.png"):
        with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
            list(list_images(uri, s3.options))


def test_input__wrong_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=f"{bucket}.* cannot be .*: the access key and the secr"):
        list(list_images(f"s3://{bucket}/x", s3.options))


def test_folder__name_that_is_no_text_is_counted(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(b"1")
    os.close(os.open(os.fsencode(tmp_path) + b"/bad\xff.png", os.O_CREAT | os.O_WRONLY))
    counts: Counter[str] = Counter()
    assert [i.uri for i in list_images(str(tmp_path), counts=counts)] == [f"{tmp_path}/good.png"]
    assert counts == {"(name is not UTF-8)": 1}


def test_list_images__is_a_stream(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinoidd.storage.s3.KEYS_PER_REQUEST", 2)
    store = Store.open(f"s3://{s3.new_bucket()}/p", s3.options)
    for number in range(3):
        store.write_bytes(f"{number}.png", b"")
    images = list_images(store.uri, s3.options)
    next(images)
    store.write_bytes("9.png", b"")  # on a page that nobody has asked for yet
    assert [i.uri[-5:] for i in images] == ["1.png", "2.png", "9.png"]


def test_suffix_of() -> None:
    assert suffix_of("https://h/a.PNG?sig=x.y/z") == ".png"
    assert suffix_of("s3://b/a.b/c") == ""
    assert suffix_of("/a/b.tar.JPG") == ".jpg"
