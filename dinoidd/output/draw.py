"""Drawing a report: title, a grid of picture pairs with captions, a legend. Pillow alone."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

INK, GREY, RED = "#1f2328", "#636c76", "#b42318"
PAPER, EMPTY = "#ffffff", "#eef0f2"
VOID = (190, 196, 202)  # the swatch of what has no class
MARGIN, GAP, SEAM = 40, 24, 4  # around the page, between cells, between the pictures of a pair
_GRID_WIDTH = 2400  # what a row of pairs may take
_NARROWEST, _WIDEST = 100, 480  # of one picture
_PAGE = 960  # the narrowest grid, so that the legend has room
_TITLE, _SUBTITLE, _TEXT, _CAPTION = 40, 24, 22, 20  # font sizes
_BAR = 16  # height of the bar of shares
_LEGEND_COLUMN = 300  # at least
_LEGEND_HEADING = "Share of all pixels shown"
_LINE = 1.35  # of the font size
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A pair of pictures, or one wide one; a text stands for what cannot be shown."""

    left: Image.Image | str
    right: Image.Image | str | None
    caption: str
    detail: str = ""  # at the caption's right; only its last word where there is little room


@dataclass(frozen=True, kw_only=True)
class Share:
    """A line of the legend; `share` is 0..1."""

    name: str
    color: tuple[int, int, int]
    share: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the cells of a report lie; all in pixels."""

    columns: int
    half: tuple[int, int]  # width and height of one picture

    @classmethod
    def of(cls, columns: int, aspect: float) -> "Layout":
        """For pictures whose height is `aspect` times their width."""
        width = ((_GRID_WIDTH - GAP * (columns - 1)) // columns - SEAM) // 2
        width = min(_WIDEST, max(_NARROWEST, width))
        return cls(columns=columns, half=(width, round(width * aspect)))

    @property
    def cell(self) -> tuple[int, int]:
        return 2 * self.half[0] + SEAM, self.half[1] + _height(_CAPTION) + 6

    @property
    def width(self) -> int:
        """Of all columns, or of the page where these are few."""
        return max(_PAGE, self.columns * (self.cell[0] + GAP) - GAP)

    def corner(self, index: int) -> tuple[int, int]:
        """Top left of a cell, from the grid's top left."""
        row, column = divmod(index, self.columns)
        return column * (self.cell[0] + GAP), row * (self.cell[1] + GAP)


def draw_report(
    title: str, subtitle: str, cells: Sequence[Cell], legend: Sequence[Share], layout: Layout
) -> Image.Image:
    """The page, as an RGB image."""
    top = MARGIN + _height(_TITLE) + _height(_SUBTITLE) + 16
    below = top + layout.corner(len(cells) - 1)[1] + layout.cell[1] + GAP
    height = below + _legend_height(legend, layout.width) + MARGIN
    page = Image.new("RGB", (layout.width + 2 * MARGIN, height), PAPER)
    draw = ImageDraw.Draw(page)
    title = shortened(title, _font(_TITLE), layout.width)
    draw.text((MARGIN, MARGIN), title, INK, _font(_TITLE), stroke_width=0.6)
    subtitle = shortened(subtitle, _font(_SUBTITLE), layout.width)
    draw.text((MARGIN, MARGIN + _height(_TITLE)), subtitle, GREY, _font(_SUBTITLE))
    for index, cell in enumerate(cells):
        x, y = layout.corner(index)
        _draw_cell(page, draw, cell, (MARGIN + x, top + y), layout)
    _draw_legend(draw, legend, (MARGIN, below), layout.width)
    return page


def _draw_cell(
    page: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, at: tuple[int, int], layout: Layout
) -> None:
    (x, y), (width, height) = at, layout.half
    if cell.right is None:
        _draw_half(page, draw, cell.left, (x, y, 2 * width + SEAM, height))
    else:
        _draw_half(page, draw, cell.left, (x, y, width, height))
        _draw_half(page, draw, cell.right, (x + width + SEAM, y, width, height))
    font, y = _font(_CAPTION), y + height + 6
    room = layout.cell[0] - 12
    detail = cell.detail
    if font.getlength(detail) > room / 2:
        detail = detail.rpartition(" ")[2]
    caption = shortened(cell.caption, font, room - font.getlength(detail))
    draw.text((x, y), caption, INK, font)
    draw.text((x + layout.cell[0], y), detail, GREY, font, anchor="ra")


def _draw_half(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    content: Image.Image | str,
    box: tuple[int, int, int, int],
) -> None:
    """A picture in the middle of its box (x, y, width, height), or a text in its place."""
    x, y, width, height = box
    draw.rectangle((x, y, x + width - 1, y + height - 1), EMPTY)
    if isinstance(content, Image.Image):
        page.paste(content, (x + (width - content.width) // 2, y + (height - content.height) // 2))
        return
    font, line, pad = _font(_CAPTION), _height(_CAPTION), 12
    lines = list(_wrapped(content, font, width - 2 * pad))
    room = max(1, (height - 2 * pad) // line)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"{lines[room - 1]}…"]
    for number, text in enumerate(lines):
        draw.text((x + pad, y + pad + number * line), text, RED, font)


def _draw_legend(
    draw: ImageDraw.ImageDraw, legend: Sequence[Share], at: tuple[int, int], width: int
) -> None:
    """A heading, a bar of all shares, and below it a swatch, name and share a class."""
    if not legend:
        return
    (left, top), line = at, _height(_TEXT)
    draw.text((left, top), _LEGEND_HEADING, GREY, _font(_TEXT))
    _draw_bar(draw, legend, (left, top + line + 4), width)
    columns = width // _LEGEND_COLUMN
    for index, entry in enumerate(legend):
        row, column = divmod(index, columns)
        x, y = left + column * width // columns, top + line + _BAR + 20 + row * (line + 6)
        _draw_share(draw, entry, (x, y), width // columns)


def _draw_bar(
    draw: ImageDraw.ImageDraw, legend: Sequence[Share], at: tuple[int, int], width: int
) -> None:
    (left, top), start = at, 0.0
    for entry in legend:
        stop = start + entry.share
        first, last = left + round(start * width), left + round(stop * width) - 1
        if last >= first:
            draw.rectangle((first, top, last, top + _BAR - 1), entry.color)
        start = stop


def _draw_share(draw: ImageDraw.ImageDraw, entry: Share, at: tuple[int, int], width: int) -> None:
    (x, y), font = at, _font(_TEXT)
    draw.rectangle((x, y + 3, x + _TEXT - 1, y + _TEXT + 2), entry.color)
    share = "<0.1 %" if entry.share < 0.001 else f"{100 * entry.share:.1f} %"
    name = shortened(entry.name, font, width - _TEXT - 120)
    draw.text((x + _TEXT + 12, y), name, INK, font)
    draw.text((x + _TEXT + 22 + font.getlength(name), y), share, GREY, font)


def _legend_height(legend: Sequence[Share], width: int) -> int:
    rows = -(-len(legend) // (width // _LEGEND_COLUMN))
    return (_height(_TEXT) + 6) * (rows + 1) + _BAR + 14 if legend else 0


def _wrapped(text: str, font: Font, width: float) -> Iterator[str]:
    """Lines no wider than `width`; words that are, such as addresses, break anywhere."""
    line = ""
    for word in text.split(" "):
        if line and font.getlength(f"{line} {word}") > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while font.getlength(line) > width and len(line) > 1:
            start = _start(line, font, width)
            yield start
            line = line[len(start) :]
    yield line


def _start(text: str, font: Font, width: float) -> str:
    """As much of the text as fits, and at least a letter."""
    return text[: _most(len(text), lambda n: font.getlength(text[:n]) <= width)]


def shortened(text: str, font: Font, width: float) -> str:
    """The text, without as much of its middle as does not fit."""

    def without_middle(kept: int) -> str:
        return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"

    if font.getlength(text) <= width:
        return text
    return without_middle(_most(len(text), lambda n: font.getlength(without_middle(n)) <= width))


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest of 1 to `limit` that fits; 1 where none does."""
    return max(1, bisect_left(range(1, limit + 1), True, key=lambda n: not fits(n)))


def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _height(size: int) -> int:
    """Of a line of text."""
    return round(size * _LINE)
