"""A picture of a run: a fair sample of its images beside their masks."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import duckdb
import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable
from dinoidd.errors import ConfigError, ImageError, StorageError
from dinoidd.output.draw import Cell, Layout, Share, draw_report
from dinoidd.output.mask import open_mask
from dinoidd.output.original import read_original
from dinoidd.output.query import open_query, rows_of
from dinoidd.output.reader import RunReader
from dinoidd.output.tails import tails
from dinoidd.storage import ObjectReader

MOST_CELLS = 200
_THREADS = 8
_COLOR_SHARE = 0.6  # of the class colour in an overlay; the rest is the image
_ASPECTS = (0.4, 1.5)  # of a cell's pictures, height over width


@dataclass(frozen=True)
class Grid:
    """How many cells a picture has, at most."""

    columns: int = 4
    rows: int = 3

    @classmethod
    def parse(cls, text: str) -> "Grid":
        """`4x3` is four columns and three rows."""
        match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", text.strip().lower())
        grid = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= grid.cells <= MOST_CELLS:
            raise ConfigError(
                f"--grid {text!r} is not COLUMNSxROWS, such as 4x3, with 1 to {MOST_CELLS} cells"
            )
        return grid

    @property
    def cells(self) -> int:
        return self.columns * self.rows


def show(run: RunReader, *, where: str, grid: Grid, seed: int) -> Image.Image:
    """Draw images that match `where` (an SQL condition), picked by a hash of their id and `seed`.

    An image or mask that cannot be read becomes a cell with the reason.

    Raises:
        ConfigError: the condition is no SQL, or nothing matches it.
    """
    with open_query(run) as connection:
        counts = _counts(connection, where)
        rows = _pick(connection, where, grid.cells, seed)
    columns = min(grid.columns, len(rows))
    layout = Layout.of(columns, _aspect(rows))
    loader = _Loader(run.table, ObjectReader(run.options), layout.half)
    with ThreadPoolExecutor(_THREADS) as pool:
        loaded = list(pool.map(loader.load, rows, tails([row["uri"] for row in rows])))
    return draw_report(
        title=run.name,
        subtitle=_subtitle(run, counts, len(rows), where),
        cells=[cell for cell, _ in loaded],
        legend=_shares(run.table, np.sum([pixels for _, pixels in loaded], axis=0)),
        layout=layout,
    )


def _counts(connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, int]:
    """How many images there are, are ok, and match."""
    counts = rows_of(
        connection,
        "SELECT count(*) AS images, count(*) FILTER (status = 'ok') AS ok, "
        f"count(*) FILTER (WHERE (\n{where}\n)) AS matches FROM images",
        told_as=f"--where {where!r}",
    )[0]
    if not counts["matches"]:
        raise ConfigError(f"none of the {counts['images']:,} images matches --where {where!r}")
    return counts


def _pick(
    connection: duckdb.DuckDBPyConnection, where: str, cells: int, seed: int
) -> list[dict[str, Any]]:
    """Up to `cells` matching rows with their masks, by image_id; a mask is read for these alone."""
    rows = rows_of(
        connection,
        "SELECT image_id, uri, status, error_kind, error, height, width, confidence FROM images "
        f"WHERE (\n{where}\n) ORDER BY md5(image_id || ' {seed}') LIMIT {cells}",
    )
    ids = ", ".join(str(row["image_id"]) for row in rows if row["status"] == "ok") or "NULL"
    masks = rows_of(
        connection, f"SELECT image_id, mask.bytes AS png FROM images WHERE image_id IN ({ids})"
    )
    png_of = {m["image_id"]: m["png"] for m in masks}
    return sorted(
        (row | {"png": png_of.get(row["image_id"])} for row in rows), key=lambda r: r["image_id"]
    )


def _aspect(rows: Sequence[dict[str, Any]]) -> float:
    """Height over width of the middle one of the images, within reason."""
    aspects = [r["height"] / r["width"] for r in rows if r["height"] and r["width"]]
    lowest, highest = _ASPECTS
    return min(highest, max(lowest, median(aspects))) if aspects else 0.75


@dataclass(frozen=True)
class _Loader:
    """Makes cells; called from threads, so that remote images are fetched side by side."""

    table: ClassTable
    reader: ObjectReader
    half: tuple[int, int]

    def load(self, row: dict[str, Any], caption: str) -> tuple[Cell, np.ndarray]:
        """The cell of a row, and its pixels per class: int64, one a class."""
        nothing = np.zeros(len(self.table), np.int64)
        if row["status"] != "ok":
            text = f"{row['error_kind']}: {row['error']}"
            return Cell(left=text, right=None, caption=caption, detail="error"), nothing
        confidence = "" if row["confidence"] is None else f"confidence {row['confidence']:.2f}"
        image = self._image(row)
        try:
            mask = open_mask(row["png"] or b"")
        except ImageError as error:
            return Cell(left=image, right=str(error), caption=caption, detail=confidence), nothing
        pixels = np.array(mask.histogram()[: len(self.table)], np.int64)
        right = self._overlay(mask, image)
        return Cell(left=image, right=right, caption=caption, detail=confidence), pixels

    def _image(self, row: dict[str, Any]) -> Image.Image | str:
        """The original, small; or why there is none."""
        try:
            size, image = read_original(self.reader, row["uri"], self.half)
        except (StorageError, ImageError) as error:
            return f"{error.kind}: {error}"
        if size != (row["width"], row["height"]):
            was, now = f"{row['width']}x{row['height']}", f"{size[0]}x{size[1]}"
            return f"changed: the image had {was} pixels when it was segmented and has {now} now"
        return image

    def _overlay(self, mask: Image.Image, image: Image.Image | str) -> Image.Image:
        """The mask's colours over the image; alone where there is no image."""
        if isinstance(image, str):
            mask.thumbnail(self.half, Image.Resampling.NEAREST)
            return mask.convert("RGB")
        colors = mask.resize(image.size, Image.Resampling.NEAREST).convert("RGB")
        return Image.blend(image, colors, _COLOR_SHARE)


def _subtitle(run: RunReader, counts: dict[str, int], shown: int, where: str) -> str:
    errors = counts["images"] - counts["ok"]
    state = "" if run.finished else " so far (unfinished)"
    parts = [f"{counts['images']:,} images{state}: {counts['ok']:,} ok, {errors:,} with errors"]
    if where != "true":
        parts.append(f"{counts['matches']:,} where {' '.join(where.split())}")
    return " · ".join([*parts, f"{shown:,} shown"])


def _shares(table: ClassTable, pixels: np.ndarray) -> list[Share]:
    """The classes that are on the masks shown, the largest first."""
    total = pixels.sum()
    order = [i for i in np.argsort(-pixels, kind="stable") if pixels[i]]
    infos = [(table.classes[i], float(pixels[i] / total)) for i in order]
    return [Share(name=c.name, color=c.color, share=share) for c, share in infos]
