"""One image as a figure: the original, its classes, both over each other, and a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from dinoidd.classes import ClassTable
from dinoidd.output.draw import SEAM, Cell, Layout, Share, draw_report
from dinoidd.prediction.statistics import ClassStatistic

ALPHA = 0.6  # of the class colour in an overlay; the rest is the image
# Of each of the three pictures: together they are 18 cm at 300 dpi, and the legend below them has six
# columns, which hold the longest names of the built-in class tables but IDD's level 2.
_WIDTH = 682
_HEIGHTS = (100, 1000)  # of the pictures, whatever the image's shape


def colored_mask(classes_HW: np.ndarray, table: ClassTable) -> Image.Image:
    """A palette image: a pixel's value is its class id."""
    image = Image.fromarray(classes_HW)
    image.putpalette(table.palette)
    return image


def overlay(image: Image.Image, mask: Image.Image, alpha: float = ALPHA) -> Image.Image:
    """The mask's colours over the image, RGB, of the image's size; alpha 1 hides the image."""
    if mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image, mask.convert("RGB"), alpha)


def draw_comparison(
    title: str,
    subtitle: str,
    image: Image.Image,
    mask: Image.Image,
    statistics: Sequence[ClassStatistic],
    table: ClassTable,
) -> Image.Image:
    """The figure as an RGB image, 2174 pixels wide."""
    lowest, highest = _HEIGHTS
    height = min(highest, max(lowest, round(_WIDTH * image.height / image.width)))
    box = (_WIDTH, height)
    small = ImageOps.contain(image, box, Image.Resampling.LANCZOS)
    colors = mask.resize(small.size, Image.Resampling.NEAREST)
    pictures = {
        "Image": small,
        "Classes": colors.convert("RGB"),
        "Overlay": overlay(small, colors),
    }
    legend = [
        Share(name=s.name, color=table.classes[s.id].color, share=s.share) for s in statistics
    ]
    return draw_report(
        title=title,
        subtitle=subtitle,
        cells=[Cell(left=p, right=None, caption=caption) for caption, p in pictures.items()],
        legend=legend,
        layout=Layout(columns=3, half=((_WIDTH - SEAM) // 2, height)),
    )
