"""Whether a mask is what its row says: decode it and count."""

from collections.abc import Iterator
from typing import Any

from dinoidd.classes import ClassTable
from dinoidd.errors import ImageError
from dinoidd.output.mask import open_mask, palette_of

COLUMNS = ["image_id", "height", "width", "mask.bytes", "pixels"]


def mask_problems(row: dict[str, Any], table: ClassTable) -> Iterator[tuple[str, str]]:
    """What is wrong with the mask of an ok row: a kind and a sentence each.

    Args:
        row: values of COLUMNS; `mask` is not None.
    """
    who, png = f"image {row['image_id']}", row["mask"]["bytes"]
    if not png:
        yield "mask missing", f"{who} is ok, but its mask has no bytes"
        return
    try:
        image = open_mask(png)
    except ImageError as error:
        yield "mask damaged", f"{who}: {error}"
        return
    if image.size != (row["width"], row["height"]):
        size = f"{image.width}x{image.height}"
        yield "mask size", f"{who} is {row['width']}x{row['height']}, but its mask is {size}"
    counts = image.histogram()
    yield from _palette_problems(who, palette_of(image, len(table)), table)
    yield from _count_problems(who, counts, row["pixels"] or {}, table)


def _palette_problems(
    who: str, palette: list[tuple[int, int, int]], table: ClassTable
) -> Iterator[tuple[str, str]]:
    for index, info in enumerate(table.classes):
        color = palette[index] if index < len(palette) else None
        if color != info.color:
            text = f"the mask's colour of '{info.name}' is {color}, not {info.color}"
            yield "mask palette", f"{who}: {text}"
            return


def _count_problems(
    who: str, counts: list[int], pixels: dict[str, int], table: ClassTable
) -> Iterator[tuple[str, str]]:
    foreign = [i for i in range(len(table), 256) if counts[i]]
    if foreign:
        last = len(table) - 1
        text = f"{counts[foreign[0]]:,} pixels of class {foreign[0]}, but the last class is {last}"
        yield "mask classes", f"{who}: the mask has {text}"
        return
    for index, name in enumerate(table.fields):
        if counts[index] != pixels.get(name):
            text = f"{counts[index]:,} pixels of {name}, but pixels.{name} is {pixels.get(name):,}"
            yield "mask counts", f"{who}: the mask has {text}"
            return
