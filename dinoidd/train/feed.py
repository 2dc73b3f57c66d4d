"""Images for uncached training, read by Ray Data: anywhere in the cluster, ahead of the worker."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from dinoidd.ahead import batches
from dinoidd.segment.pipeline import read_ahead, user_error
from dinoidd.training.example_set import Read, Skipped
from dinoidd.training.key_bytes import key_bytes, key_of
from dinoidd.training.local_feed import LocalFeed, Place
from dinoidd.training.reading import Example

_IMAGES_PER_TASK = 16
_TASKS_PER_DATASET = 1024  # planning one takes Ray 2 ms and 8 kB, all of it before the first image
_ROWS = pa.schema(
    [
        ("key", pa.binary()),  # null: the place is left out
        ("view", pa.int32()),
        ("image", pa.large_binary()),  # square, RGB, uint8
        ("label", pa.large_binary()),  # square, class ids, uint8
        ("skipped", pa.string()),
    ]
)


class RayFeed(LocalFeed):
    """A LocalFeed that has its images read in Ray tasks instead of threads, in the same order."""

    def _reads(self, read: Callable[[Place], Read], places: Iterable[Place]) -> Iterator[Read]:
        groups = batches(places, _IMAGES_PER_TASK)
        for some in batches(groups, _TASKS_PER_DATASET):
            yield from _read_groups(read, some)


def _read_groups(read: Callable[[Place], Read], groups: list[list[Place]]) -> Iterator[Read]:
    """Each group in a task; results in order."""

    def read_group(batch: dict[str, np.ndarray]) -> pa.Table:
        rows = [_row(read(place)) for place in groups[batch["id"].item()]]
        return pa.Table.from_pylist(rows, schema=_ROWS)

    try:
        for table in read_ahead(len(groups), read_group):
            for row in table.to_pylist():
                yield _read(row)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error


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


def _read(row: dict[str, Any]) -> Read:
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
