"""Two runs compared, as a picture: each class's change of IoU with its interval."""

from typing import Any

from PIL import Image, ImageDraw, ImageFont

from dinoidd.evaluation.comparison import BETTER, UNITS_NEEDED, WORSE, verdict_text
from dinoidd.output.draw import EMPTY, GREY, INK, MARGIN, PAPER, shortened

_TITLE, _TEXT = 34, 20  # font sizes
_ROW, _CHART, _NUMBERS = 34, 900, 110  # height of a row, widths of the bars and of the numbers
_COLORS = {BETTER: "#1a7f37", WORSE: "#b42318"}
_CHANCE = "#9aa4ae"


def draw_comparison(comparison: dict[str, Any]) -> Image.Image:
    """Bars of the differences in percentage points, thin lines for the intervals, sorted."""
    mean = comparison["mean_iou"]
    overall = {"name": f"mean of {mean['classes']} classes in both"} | mean
    classes = sorted(comparison["classes"], key=lambda entry: -(entry["difference"] or 0.0))
    rows = [row for row in (overall, *classes) if row["difference"] is not None]
    font = _font(_TEXT)
    names = int(max((font.getlength(row["name"]) for row in rows), default=0)) + 24
    words = int(max((font.getlength(_judged(row)) for row in rows), default=0))
    top = MARGIN + _TITLE + 2 * _TEXT + 40
    size = (2 * MARGIN + names + _CHART + _NUMBERS + words, top + _ROW * len(rows) + MARGIN)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), "Change of IoU", INK, _font(_TITLE), stroke_width=0.5)
    subtitle = shortened(_subtitle(comparison), font, page.width - 2 * MARGIN)
    draw.text((MARGIN, MARGIN + _TITLE + 8), subtitle, GREY, font)
    span = max([0.001, *(abs(v) for row in rows for v in (row["difference"], *_ends(row)))])
    for index, row in enumerate(rows):
        y = top + index * _ROW
        draw.text((MARGIN, y + _ROW / 2), row["name"], INK, font, anchor="lm")
        _draw_bar(draw, row, (MARGIN + names, y), span)
        _draw_numbers(draw, row, (MARGIN + names + _CHART, y + _ROW // 2))
    return page


def _draw_bar(
    draw: ImageDraw.ImageDraw, row: dict[str, Any], at: tuple[int, int], span: float
) -> None:
    left, top = at
    middle = left + _CHART / 2

    def x(value: float) -> float:
        return middle + value / span * (_CHART / 2 - 20)

    draw.rectangle((left, top + 2, left + _CHART, top + _ROW - 3), EMPTY)
    start, stop = sorted((middle, x(row["difference"])))
    color = _COLORS.get(row["verdict"], _CHANCE)
    draw.rectangle((start, top + 9, stop, top + _ROW - 10), color)
    low, high = (x(end) for end in _ends(row))
    center = top + _ROW // 2
    draw.line((low, center, high, center), INK, 2)
    for end in (low, high):
        draw.line((end, center - 6, end, center + 6), INK, 2)
    draw.line((middle, top, middle, top + _ROW), GREY, 1)


def _draw_numbers(draw: ImageDraw.ImageDraw, row: dict[str, Any], at: tuple[int, int]) -> None:
    (x, y), font = at, _font(_TEXT)
    draw.text((x + 90, y), f"{100 * row['difference']:+.1f}", INK, font, anchor="rm")
    color = _COLORS.get(row["verdict"], GREY)
    draw.text((x + _NUMBERS, y), _judged(row), color, font, anchor="lm")


def _judged(row: dict[str, Any]) -> str:
    return verdict_text(row["verdict"], row["frames"])


def _ends(row: dict[str, Any]) -> tuple[float, float]:
    low, high = row["interval"] or (row["difference"], row["difference"])
    return low, high


def _subtitle(comparison: dict[str, Any]) -> str:
    return (
        f"percentage points against {comparison['other']}, {comparison['frames']:,} frames of both; "
        f"lines are {comparison['level']:.0%} intervals"
        + ("" if comparison["frames"] >= UNITS_NEEDED else ", rough as the frames are few")
    )


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
