"""The confusion matrix as a picture: each row is what a class's labelled pixels were taken for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dinoidd.classes import ClassTable
from dinoidd.output.draw import EMPTY, GREY, INK, MARGIN, PAPER, VOID, shortened

_TITLE, _TEXT, _AXIS = 34, 18, 20  # font sizes
_CELL, _SMALL_CELL, _MANY = 46, 18, 40  # more classes than _MANY get small cells without numbers
_SWATCH, _GAP = 16, 8
_LEAST = 0.005  # smaller shares are left unwritten
_WHITE, _BLUE, _DARK = (255, 255, 255), (49, 120, 198), (9, 33, 87)


@dataclass(frozen=True)
class _Grid:
    """Where the cells are, in pixels."""

    left: int
    top: int
    cell: int
    rows: int
    columns: int

    def corner(self, row: int, column: int) -> tuple[int, int]:
        return self.left + column * self.cell, self.top + row * self.cell

    @property
    def size(self) -> tuple[int, int]:
        right, below = self.corner(self.rows, self.columns)
        return right + MARGIN, below + MARGIN


def draw_confusion(matrix: np.ndarray, table: ClassTable, title: str, subtitle: str) -> Image.Image:
    """Rows are ground truth, columns prediction; the last column is void. In per cent of a row.

    Args:
        matrix: int64 [K + 1, K + 1], index K is void; void ground truth is not shown.
    """
    names = [*table.names, "void"]
    text = _font(_TEXT if len(names) <= _MANY else _SMALL_CELL - 4)
    room = int(max(text.getlength(name) for name in names)) + _SWATCH + 2 * _GAP
    cell = _CELL if len(names) <= _MANY else _SMALL_CELL
    top = MARGIN + 2 * _TITLE + 2 * _AXIS + room
    grid = _Grid(MARGIN + _AXIS + _GAP + room, top, cell, len(table), len(names))
    width, height = grid.size
    width = max(width, int(_font(_TITLE).getlength(title)) + 2 * MARGIN)
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, INK, _font(_TITLE), stroke_width=0.5)
    subtitle = shortened(subtitle, _font(_AXIS), width - 2 * MARGIN)
    draw.text((MARGIN, MARGIN + _TITLE + _GAP), subtitle, GREY, _font(_AXIS))
    _draw_axes(page, grid, room)
    _draw_names(page, grid, names, table, text)
    _draw_cells(draw, grid, matrix, text)
    return page


def _draw_cells(
    draw: ImageDraw.ImageDraw, grid: _Grid, matrix: np.ndarray, font: ImageFont.FreeTypeFont
) -> None:
    labelled = matrix[: grid.rows]
    pixels = labelled.sum(1)
    for row in range(grid.rows):
        for column in range(grid.columns):
            x, y = grid.corner(row, column)
            box = (x, y, x + grid.cell - 2, y + grid.cell - 2)
            if not pixels[row]:
                draw.rectangle(box, EMPTY)
                continue
            share = labelled[row, column] / pixels[row]
            draw.rectangle(box, _color(share))
            if share >= _LEAST and grid.cell == _CELL:
                ink = "white" if share > 0.2 else INK
                at = (x + grid.cell / 2 - 1, y + grid.cell / 2 - 1)
                draw.text(at, f"{100 * share:.0f}", ink, font, anchor="mm")


def _draw_names(
    page: Image.Image,
    grid: _Grid,
    names: Sequence[str],
    table: ClassTable,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Names left of the rows, and turned above the columns, each with its class's colour."""
    swatch = min(_SWATCH, grid.cell - 4)
    for index, name in enumerate(names):
        color = table.classes[index].color if index < len(table) else VOID
        label = _label(name, color, font, swatch, grid.cell)
        x, y = grid.corner(index, index)
        if index < grid.rows:
            page.paste(label, (grid.left - label.width - _GAP, y))
        page.paste(label.rotate(-90, expand=True), (x, grid.top - label.width - _GAP))


def _label(
    name: str,
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
    swatch: int,
    height: int,
) -> Image.Image:
    """A name and, at its right end, a swatch."""
    width = int(font.getlength(name)) + 1
    label = Image.new("RGB", (width + _GAP + swatch, height), PAPER)
    draw = ImageDraw.Draw(label)
    draw.text((0, height / 2), name, INK, font, anchor="lm")
    top = (height - swatch) // 2
    draw.rectangle((width + _GAP, top, width + _GAP + swatch - 1, top + swatch - 1), color)
    return label


def _draw_axes(page: Image.Image, grid: _Grid, room: int) -> None:
    """What rows and columns are, in the middle of each, or from where they begin if these are few."""
    draw, font = ImageDraw.Draw(page), _font(_AXIS)
    above, across = grid.top - room - _GAP, "predicted as (per cent of the row)"
    left = grid.left + max(0, int(grid.columns * grid.cell - font.getlength(across)) // 2)
    draw.text((left, above), across, GREY, font, anchor="ld")
    text = "ground truth"
    turned = Image.new("RGB", (int(font.getlength(text)) + 1, _AXIS + 6), PAPER)
    ImageDraw.Draw(turned).text((0, 0), text, GREY, font)
    top = grid.top + max(0, (grid.rows * grid.cell - turned.width) // 2)
    page.paste(turned.rotate(90, expand=True), (MARGIN - _GAP, top))


def _color(share: float) -> tuple[int, int, int]:
    """White over blue to dark; a square root, so that small shares show."""
    position = 2 * float(np.sqrt(share))
    low, high = (_WHITE, _BLUE) if position < 1 else (_BLUE, _DARK)
    part = position % 1 if position < 2 else 1.0
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
