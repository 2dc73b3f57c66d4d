"""A validation image to be looked at: image, ground truth, prediction, and a legend."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dinoidd.classes import ClassTable
from dinoidd.output.draw import GREY, INK, PAPER, VOID
from dinoidd.training.key_bytes import printable
from dinoidd.training.records import Picture

_TITLES = ("image", "ground truth", "prediction")
_SEAM, _TITLE, _LINE, _SWATCH, _COLUMN = 6, 24, 20, 12, 150  # pixels
_SIDE = 320  # of a panel, at least


def draw_picture(picture: Picture, table: ClassTable) -> Image.Image:
    """The three beside each other; void is grey. The legend has the classes seen, largest first."""
    side = max(_SIDE, picture.image_SS3.shape[0])
    panels = (
        Image.fromarray(picture.image_SS3).resize((side, side), Image.Resampling.BILINEAR),
        _colored(picture.truth_SS, table, side),
        _colored(picture.prediction_SS, table, side),
    )
    width = 3 * side + 2 * _SEAM
    seen = _seen(picture, table)
    columns = width // _COLUMN
    rows = -(-len(seen) // columns)
    page = Image.new("RGB", (width, _TITLE + side + _SEAM + rows * _LINE + _SEAM), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for index, (title, panel) in enumerate(zip(_TITLES, panels, strict=True)):
        left = index * (side + _SEAM)
        draw.text(
            (left + 2, 3), title if index else f"{title} {printable(picture.key)}", GREY, font
        )
        page.paste(panel, (left, _TITLE))
    for index, (name, color) in enumerate(seen):
        row, column = divmod(index, columns)
        x, y = column * width // columns, _TITLE + side + _SEAM + row * _LINE
        draw.rectangle((x, y + 3, x + _SWATCH, y + 3 + _SWATCH), color, outline=GREY)
        draw.text((x + _SWATCH + 6, y), name, INK, font)
    return page


def _colored(ids_SS: np.ndarray, table: ClassTable, side: int) -> Image.Image:
    image = Image.fromarray(ids_SS).convert("P")
    colors = table.palette[: 3 * len(table)]
    image.putpalette(colors + bytes(VOID) * (256 - len(table)))
    return image.resize((side, side), Image.Resampling.NEAREST).convert("RGB")


def _seen(picture: Picture, table: ClassTable) -> list[tuple[str, tuple[int, int, int]]]:
    ids = np.concatenate([picture.truth_SS.ravel(), picture.prediction_SS.ravel()])
    pixels = np.bincount(ids, minlength=len(table))
    order = [i for i in np.argsort(-pixels[: len(table)], kind="stable") if pixels[i]]
    seen = [(table.classes[i].name, table.classes[i].color) for i in order]
    return [*seen, ("void", VOID)] if pixels[len(table) :].any() else seen
