"""Pixels by class, summed over all images, over folders and over time, in one scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from dinoidd.classes import ClassTable
from dinoidd.output.query import rows_of
from dinoidd.report.axes import FOLDER, SECONDS, Axes, time_label
from dinoidd.report.figures import ClassShare, Folders, Slice, Times
from dinoidd.report.sql import member, text


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What the scan found."""

    classes: Sequence[ClassShare]
    folders: Folders | None
    times: Times | None


def sum_up(connection: duckdb.DuckDBPyConnection, table: ClassTable, axes: Axes, root: str) -> Sums:
    """Scan the view `images` once; `root` is left out of the folders' labels."""
    rows = rows_of(connection, _query(table, axes))
    whole = next(row for row in rows if row["level"] == 3)
    folders = sorted((r for r in rows if r["level"] == 1 and r["folder"]), key=_folder)
    times = sorted((r for r in rows if r["level"] == 2 and r["start"] is not None), key=_start)
    return Sums(
        classes=_classes(whole, table),
        folders=Folders(
            slices=[_slice(r, _label(r["folder"], root), len(table)) for r in folders],
            total=axes.all_folders,
        )
        if folders
        else None,
        times=Times(
            slices=[
                _slice(r, time_label(r["start"], axes.step), len(table), r["start"]) for r in times
            ],
            seconds=axes.step,
            images=axes.timed,
        )
        if axes.step is not None
        else None,
    )


def _query(table: ClassTable, axes: Axes) -> str:
    """`level` is 3 for the row of all images, 1 for a folder's, 2 for a stretch of time's."""
    named = ", ".join(map(text, axes.folders))
    folder = f"CASE WHEN {FOLDER} IN ({named}) THEN {FOLDER} END" if named else "NULL::VARCHAR"
    step = axes.step
    start = f"floor({SECONDS} / {step}) * {step}" if step else "NULL::DOUBLE"
    columns = ", ".join(
        f"sum({member('pixels', name)}) AS p{i}, "
        f"count(*) FILTER ({member('pixels', name)} > 0) AS n{i}, "
        f"max({member('pixels', name)} / (height::DOUBLE * width)) AS f{i}"
        for i, name in enumerate(table.fields)
    )
    return (
        "SELECT grouping(folder, start) AS level, folder, start, count(*) AS images, "
        "count(*) FILTER (status <> 'ok') AS errors, avg(confidence) AS confidence, "
        f"{columns} FROM (SELECT *, {folder} AS folder, {start} AS start FROM images) "
        "GROUP BY GROUPING SETS ((), (folder), (start))"
    )


def _classes(row: dict[str, Any], table: ClassTable) -> list[ClassShare]:
    return [
        ClassShare(
            name=info.name,
            color=info.color,
            pixels=int(row[f"p{i}"] or 0),
            images=row[f"n{i}"],
            largest=row[f"f{i}"] or 0.0,
        )
        for i, info in enumerate(table.classes)
    ]


def _slice(row: dict[str, Any], label: str, classes: int, start: float = 0.0) -> Slice:
    return Slice(
        label=label,
        images=row["images"],
        errors=row["errors"],
        confidence=row["confidence"],
        pixels=[int(row[f"p{i}"] or 0) for i in range(classes)],
        start=start,
    )


def _label(folder: str, root: str) -> str:
    return folder.removeprefix(root).rstrip("/") or "/"


def _folder(row: dict[str, Any]) -> str:
    return row["folder"]


def _start(row: dict[str, Any]) -> float:
    return row["start"]
