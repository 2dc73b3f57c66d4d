"""Files of the cache: what is written is read back, where it lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dinoidd.errors import StorageError
from dinoidd.models import preset
from dinoidd.storage import Store
from dinoidd.train.cache_size import row_bytes, rows_per_file
from dinoidd.train.rows import Rows
from dinoidd.training.cache_file import (
    CacheFile,
    Unusable,
    cache_table,
    errors_of,
    read_errors,
    write_cache_file,
)
from dinoidd.training.config import LossConfig, TrainConfig
from dinoidd.training.observation import Observation


def observation(seed: int, classes: int, *, pictured: bool = False) -> Observation:
    """One with arrays of odd sizes, and one dimension that differs from image to image."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (7, 7, 3), dtype=np.uint8) if pictured else None
    return Observation(
        key=f"train/0/{seed}",
        view=seed % 2,
        queries_LQC=draw.integers(0, 65536, (1, 3, 5), dtype=np.uint16),
        classes_G=draw.integers(0, 26, classes, dtype=np.uint8),
        match_bce_LQG=draw.random((1, 3, classes), dtype=np.float32),
        image_SS3=image,
    )


def test_cache_file__rows_come_back(tmp_path: Path) -> None:
    rows = [
        observation(0, 3, pictured=True),
        Unusable(key="train/0/broken", view=2, reason="it is empty"),
        observation(1, 0),
    ]
    table, folder = cache_table(rows), Store.open(str(tmp_path))
    assert errors_of(table) == {"train/0/broken": "it is empty"}
    size = write_cache_file(folder, "rows.arrow", table)
    assert size == (tmp_path / "rows.arrow").stat().st_size
    assert read_errors(folder, "rows.arrow") == {"train/0/broken": "it is empty"}
    file = CacheFile(tmp_path / "rows.arrow")
    assert len(file) == 3
    assert file.read(1) == rows[1]
    for index in (0, 2):
        expected, found = rows[index], file.read(index)
        assert isinstance(expected, Observation)
        assert isinstance(found, Observation)
        assert (found.key, found.view) == (expected.key, expected.view)
        assert found.arrays.keys() == expected.arrays.keys()
        for name, array in found.arrays.items():
            assert array.dtype == expected.arrays[name].dtype
            assert np.array_equal(array, expected.arrays[name])
            assert array.flags.aligned
            assert not array.flags.writeable


def test_cache_file__nothing_but_errors(tmp_path: Path) -> None:
    rows = [Unusable(key="a", view=0, reason="gone")]
    write_cache_file(Store.open(str(tmp_path)), "rows.arrow", cache_table(rows))
    assert CacheFile(tmp_path / "rows.arrow").read(0) == rows[0]


def test_cache_file__names_that_are_not_utf_8(tmp_path: Path) -> None:
    rows = [
        replace(observation(0, 3), key="train/0/stra\udcdfe"),
        Unusable(key="train/0/b\udcff", view=0, reason="image train/0/b\udcff is empty"),
    ]
    table, folder = cache_table(rows), Store.open(str(tmp_path))
    told = {"train/0/b\udcff": "image train/0/b\udcff is empty"}
    assert errors_of(table) == told
    write_cache_file(folder, "rows.arrow", table)
    assert read_errors(folder, "rows.arrow") == told
    file = CacheFile(tmp_path / "rows.arrow")
    assert [file.read(i).key for i in (0, 1)] == [row.key for row in rows]
    assert file.read(1) == rows[1]


def test_cache_file__keys_of_an_earlier_version_are_strings(tmp_path: Path) -> None:
    rows = [observation(1, 2), Unusable(key="a", view=0, reason="gone")]
    table = cache_table(rows)
    for name in ("key", "error"):
        strings = table[name].cast(pa.string())
        table = table.set_column(table.column_names.index(name), name, strings)
    write_cache_file(Store.open(str(tmp_path)), "rows.arrow", table)
    file = CacheFile(tmp_path / "rows.arrow")
    assert file.read(0).key == rows[0].key
    assert file.read(1) == rows[1]


def test_cache_file__truncated(tmp_path: Path) -> None:
    write_cache_file(Store.open(str(tmp_path)), "rows.arrow", cache_table([observation(0, 3)]))
    path = tmp_path / "rows.arrow"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StorageError, match=r"rows\.arrow is no file of a cache: "):
        CacheFile(path)


def test_rows__files_cover_all_of_them_once() -> None:
    rows = Rows(images=7, views=3, rows_per_file=8)
    assert (rows.rows, rows.files) == (21, 3)
    assert [i for file in range(3) for i in rows.range_of(file)] == list(range(21))
    assert rows.name_of(2) == "rows-000000016-000000021.arrow"
    for row in range(21):
        file, place = rows.place_of(row)
        assert rows.range_of(file)[place] == row


def test_row_bytes__of_7b_at_512() -> None:
    """About 0.4 MB for training, 3.3 MB beside it for the masks of validation."""
    config = TrainConfig(data="d", output="o", preset="vit7b16", precision="bfloat16")
    model = preset("vit7b16")
    train = row_bytes(config, model, 512, validation=False)
    masks = row_bytes(config, model, 512, validation=True) - train
    assert 0.40e6 < train < 0.45e6
    assert masks == 100 * 128 * 128 * 2 + 512 * 512
    pixel = TrainConfig(
        data="d", output="o", preset="vit7b16", precision="bfloat16", loss=LossConfig(kind="pixel")
    )
    assert row_bytes(pixel, model, 512, validation=False) > 100 * 12_544 * 2


def test_rows_per_file__whole_batches_of_about_64_mb() -> None:
    assert rows_per_file(430_000, 7000, batch=8, actors=1) == 160
    assert rows_per_file(4_000_000, 1000, batch=8, actors=1) == 16
    assert rows_per_file(430_000, 100, batch=8, actors=4) == 8
    assert rows_per_file(500_000_000, 100, batch=1, actors=1) == 1
