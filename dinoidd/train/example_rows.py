"""Examples as rows of a table, to travel through Ray. The processes that read them need no torch."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from dinoidd.training.example_set import Read, Skipped
from dinoidd.training.key_bytes import key_bytes, key_of
from dinoidd.training.reading import Example

_ROWS = pa.schema(
    [
        ("key", pa.binary()),  # null: the place is left out
        ("view", pa.int32()),
        ("image", pa.large_binary()),  # square, RGB, uint8
        ("label", pa.large_binary()),  # square, class ids, uint8
        ("skipped", pa.string()),
    ]
)


def table_of(reads: Iterable[Read]) -> pa.Table:
    """A row for each place that was read."""
    return pa.Table.from_pylist([_row(read) for read in reads], schema=_ROWS)


def _row(read: Read) -> dict[str, Any]:
    row: dict[str, Any] = {"skipped": json.dumps([asdict(skipped) for skipped in read.skipped])}
    if (example := read.example) is None:
        return row
    return row | {
        "key": key_bytes(example.key),
        "view": example.view,
        "image": example.image_SS3.tobytes(),
        "label": example.label_SS.tobytes(),
    }


def read_of(row: dict[str, Any]) -> Read:
    """A row of `table_of` as it was read."""
    skipped = tuple(Skipped(**values) for values in json.loads(row["skipped"]))
    if row["key"] is None:
        return Read(example=None, skipped=skipped)
    label = np.frombuffer(row["label"], np.uint8)
    size = round(len(label) ** 0.5)
    example = Example(
        key=key_of(row["key"]),
        view=row["view"],
        image_SS3=np.frombuffer(row["image"], np.uint8).reshape(size, size, 3),
        label_SS=label.reshape(size, size),
    )
    return Read(example=example, skipped=skipped)
