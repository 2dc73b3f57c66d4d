"""Writing an evaluation down: JSON with its counts, and a folder with tables and pictures."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable
from dinoidd.evaluation.comparison_picture import draw_comparison
from dinoidd.evaluation.earlier import counts_name
from dinoidd.evaluation.result import as_json
from dinoidd.evaluation.text import as_text
from dinoidd.output.confusion_picture import draw_confusion
from dinoidd.storage import StorageOptions, Store, normalise

JSON_NAME = "evaluation.json"


def write_json(result: dict[str, Any], counts: Path, uri: str, options: StorageOptions) -> None:
    """The result, and the counts of every frame beside it, here or in a bucket. Counts come first:
    a JSON that is there has its counts."""
    store, name = folder_of(uri, options)
    store.upload(counts, counts_name(name))
    store.write_bytes(name, as_json(result))


def folder_of(uri: str, options: StorageOptions) -> tuple[Store, str]:
    """The folder of a file, and the file's name in it."""
    folder, _, name = normalise(uri).rpartition("/")
    return Store.open(folder or "/", options), name


def write_report(
    result: dict[str, Any], counts: Path, table: ClassTable, uri: str, options: StorageOptions
) -> None:
    """A folder: report.txt, evaluation.json, classes.csv, drives.csv, confusion.png, and
    comparison.png where there is one."""
    store = Store.open(uri, options)
    finest = result["levels"][result["finest_level"]]
    matrix = np.array(result["confusion"]["matrix"], np.int64)
    subtitle = f"{result['frames']['evaluated']:,} frames; {finest['presence']}"
    mean = 100 * (finest["mean_iou"] or 0.0)
    title = f"Confusion of classes, mean IoU {mean:.2f} %"
    write_json(result, counts, store.uri_of(JSON_NAME), options)
    store.write_bytes("report.txt", f"{as_text(result)}\n".encode())
    store.write_bytes("classes.csv", _csv(_class_rows(result)))
    store.write_bytes("drives.csv", _csv(result["drives"]))
    store.write_bytes("confusion.png", _png(draw_confusion(matrix, table, title, subtitle)))
    if "comparison" in result:
        store.write_bytes("comparison.png", _png(draw_comparison(result["comparison"])))
        store.write_bytes("comparison.csv", _csv(result["comparison"]["classes"]))


def _class_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The classes of all levels; boundary IoU and intervals are those of the finest one."""
    rows = []
    for name, level in result["levels"].items():
        finest = name == result["finest_level"]
        for entry in level["classes"]:
            ends = result["intervals"]["classes"].get(entry["name"]) if finest else None
            boundary = result["boundary"]["classes"][entry["name"]] if finest else None
            rows.append({"level": name} | entry | {"boundary_iou": boundary, "interval": ends})
    return rows


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """A pair under `x` or `x_interval` becomes the columns `x_low` and `x_high`."""
    out = io.StringIO()
    flat = [dict(pair for item in row.items() for pair in _columns(*item)) for row in rows]
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue().encode()


def _columns(name: str, value: Any) -> list[tuple[str, Any]]:
    if not name.endswith("interval"):
        return [(name, value)]
    low, high = value or (None, None)
    return [(f"{name}_low", low), (f"{name}_high", high)]


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
