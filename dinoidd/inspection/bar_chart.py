"""How often each class occurs, as a picture: share of pixels and share of images."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dinoidd.classes import ClassTable
from dinoidd.data.inspect import ClassShare

_INK, _GREY, _PAPER, _TRACK, _VOID = "#1f2328", "#636c76", "#ffffff", "#eef0f2", (190, 196, 202)
_MARGIN, _ROW, _BAR = 40, 30, 18
_WIDTH, _VALUE = 420, 90  # of a column of bars and of the number behind each
_TITLE, _TEXT = 34, 20
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_bar_chart(
    title: str, subtitle: str, shares: Sequence[ClassShare], table: ClassTable
) -> Image.Image:
    """A row a class in the table's order, `void` last; bars are in the class's colour, 0 to 100 %."""
    font = ImageFont.load_default(size=_TEXT)
    names = max(font.getlength(share.name) for share in shares) + _ROW + 20
    lefts = [round(_MARGIN + names), round(_MARGIN + names) + _WIDTH + _VALUE]
    top = _MARGIN + 130
    width = max(lefts[1] + _WIDTH + _VALUE, _needed(title, subtitle)) + _MARGIN
    page = Image.new("RGB", (width, top + len(shares) * _ROW + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    title_font = ImageFont.load_default(size=_TITLE)
    draw.text((_MARGIN, _MARGIN), title, _INK, title_font, stroke_width=0.5)
    draw.text((_MARGIN, _MARGIN + 48), subtitle, _GREY, font)
    for left, heading in zip(lefts, ("share of pixels", "share of images"), strict=True):
        draw.text((left, top - 32), heading, _GREY, font)
    colors = [info.color for info in table.classes] + [_VOID]
    for index, (share, color) in enumerate(zip(shares, colors, strict=True)):
        _draw_row(draw, share, color, (_MARGIN, top + index * _ROW), lefts, font)
    return page


def _needed(title: str, subtitle: str) -> int:
    widths = [
        ImageFont.load_default(size=size).getlength(text)
        for size, text in ((_TITLE, title), (_TEXT, subtitle))
    ]
    return round(_MARGIN + max(widths))


def _draw_row(
    draw: ImageDraw.ImageDraw,
    share: ClassShare,
    color: tuple[int, int, int],
    at: tuple[int, int],
    lefts: Sequence[int],
    font: Font,
) -> None:
    x, y = at
    draw.rectangle((x, y + 4, x + _BAR, y + 4 + _BAR), color)
    draw.text((x + _BAR + 12, y + 1), share.name, _INK, font)
    for left, part in zip(lefts, (share.pixel_share, share.image_share), strict=True):
        draw.rectangle((left, y + 4, left + _WIDTH, y + 4 + _BAR), _TRACK)
        if part > 0:
            draw.rectangle((left, y + 4, left + max(1, round(part * _WIDTH)), y + 4 + _BAR), color)
        draw.text((left + _WIDTH + 8, y + 1), _percent(part), _INK if part else _GREY, font)


def _percent(part: float) -> str:
    if part == 0:
        return "0"
    if part < 0.0001:
        return "<0.01 %"
    return f"{100 * part:.2f} %" if part < 0.01 else f"{100 * part:.1f} %"
