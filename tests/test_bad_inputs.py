"""Every bad input has its row or its sentence: one real run over all of them, told in bad_inputs.md.

`DINOIDD_WRITE_TABLE=1 pytest tests/test_bad_inputs.py` writes the table anew.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bad_files import CONTENTS, LATER, MAX_BYTES, NAMES, SPECIAL, write_bad_files
from image_files import encoded, picture
from segment_runs import Row, embedded_ray, proof, rows_of, save_model, segment

from dinoidd.data.image import decode_image
from dinoidd.data.manifest import index_images
from dinoidd.errors import ImageError, StorageError
from dinoidd.storage import ObjectReader, Store

TABLE = Path(__file__).with_name("bad_inputs.md")
HEAD = """\
# What bad inputs give

Every image has one row, whatever it is. This table is what one run of `dinoidd segment` gave, with
`--max-bytes 100,000`; `tests/test_bad_inputs.py` makes the files, runs it, and fails where the table says
something else. In sentences, `FOLDER` is the input, and numbers of bytes are `N`.
"""
LEFT_OUT = {".hidden.png": "(hidden)", os.fsdecode(b"latin-\xe9.png"): "(name is not UTF-8)"}


@dataclass(frozen=True)
class Run:
    """The finished run of all files."""

    folder: Path
    rows: dict[str, Row]  # by path below the input

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bad")
    files = folder / "in"
    files.mkdir()
    write_bad_files(files)
    for name, (_, make) in SPECIAL.items():
        make(files / name)
    for name in LATER:
        (files / name).write_bytes(encoded(picture(), "PNG"))
    index_images(str(files), Store.open(str(folder / "out")))
    for name, (_, change) in LATER.items():
        change(files / name)
    model = save_model(folder / "model.safetensors")
    with embedded_ray():
        ran = segment(
            *("--input", files, "--output", folder / "out", "--checkpoint", model),
            *("--max-bytes", MAX_BYTES, "--rows-per-chunk", 32, "--max-error-rate", 1),
        )
    assert ran.status == 0, ran.err
    rows = {row["uri"].removeprefix(f"{files}/"): row for row in rows_of(folder / "out")}
    return Run(folder, rows)


def test_bad_inputs__every_one_has_its_row(run: Run) -> None:
    expected = {*CONTENTS, *SPECIAL, *LATER} | {f"names/{n}" for n in NAMES if n not in LEFT_OUT}
    assert set(run.rows) == expected
    proof(run.out)
    for name in NAMES:
        if name not in LEFT_OUT:
            assert run.rows[f"names/{name}"]["status"] == "ok", name
    skipped = json.loads((run.out / "manifest" / "manifest.json").read_text())["skipped"]
    assert skipped == dict.fromkeys(LEFT_OUT.values(), 1)


def test_bad_inputs__errors_are_printable_sentences(run: Run) -> None:
    for name, row in run.rows.items():
        if row["status"] == "error":
            assert row["error"].isprintable(), name
            assert row["error_kind"] != "crashed", (name, row["error"])


def test_bad_inputs__table_is_what_the_run_gave(run: Run) -> None:
    text = "\n".join([HEAD, *_table(run)]) + "\n"
    if os.environ.get("DINOIDD_WRITE_TABLE"):
        TABLE.write_text(text)
    assert TABLE.read_text() == text, "DINOIDD_WRITE_TABLE=1 writes it anew"
    assert len(run.rows) >= 30


def _table(run: Run) -> Iterator[str]:
    yield "| input | row | note or sentence |\n|---|---|---|"
    whats = {
        name: what for table in (CONTENTS, SPECIAL, LATER) for name, (what, _) in table.items()
    }
    for name, what in whats.items():
        yield _line(what, run.rows[name], run.folder / "in")
    yield "\n## Names\n\n| a name with | row | note or sentence |\n|---|---|---|"
    for name, what in NAMES.items():
        if name in LEFT_OUT:
            yield f"| {what} | none | left out, counted as `{LEFT_OUT[name]}` |"
        else:
            yield _line(what, run.rows[f"names/{name}"], run.folder / "in")


def _line(what: str, row: Row, folder: Path) -> str:
    if row["status"] == "ok":
        return f"| {what} | ok, {row['height']} x {row['width']} | {row['note'] or ''} |"
    sentence = row["error"].replace(str(folder), "FOLDER")
    sentence = re.sub(r"[\d,]+ bytes", "N bytes", sentence)
    return f"| {what} | `{row['error_kind']}` | {sentence} |"


def test_bad_inputs__no_permission(tmp_path: Path) -> None:
    """Read by a process that may not, since these tests may run as root."""
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(picture(), "PNG"))
    path.chmod(0)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            ObjectReader().read(str(path))
        except StorageError as error:
            os.write(writer, f"{error.kind}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert said.read() == f"forbidden: {path} cannot be read: access is denied"
    os.waitpid(child, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_decode__mutated_files_are_images_or_errors(kind: str) -> None:
    """Bytes changed, cut out, and doubled at random: never another exception, never a crash."""
    whole, outcomes = encoded(picture(), kind), Counter[str]()
    for seed in range(120):
        try:
            decoded = decode_image(_mutated(whole, seed), max_pixels=1_000_000)
        except ImageError as error:
            outcomes[error.kind] += 1
        else:
            outcomes["ok"] += 1
            assert decoded.image.mode == "RGB"
            assert decoded.resized((16, 16)).shape == (16, 16, 3)
    assert sum(outcomes.values()) == 120
    assert len(outcomes) > 1, outcomes


def _mutated(data: bytes, seed: int) -> bytes:
    """A few of the bytes, or of the header's, another way."""
    draw = np.random.default_rng(seed)
    bytes_ = bytearray(data)
    reach = len(bytes_) if seed % 2 else min(64, len(bytes_))
    for _ in range(draw.integers(1, 8)):
        at = int(draw.integers(reach))
        how, size = draw.integers(3), int(draw.integers(1, 16))
        if how == 0:
            bytes_[at] = int(draw.integers(256))
        elif how == 1:
            del bytes_[at : at + size]
        else:
            bytes_[at:at] = bytes_[at : at + size]
        reach = max(1, min(reach, len(bytes_)))
    return bytes(bytes_)
