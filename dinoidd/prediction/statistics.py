"""What an image consists of: pixels and share of each class, as data and as text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dinoidd.classes import ClassTable
from dinoidd.output.mask import count_pixels


@dataclass(frozen=True, kw_only=True)
class ClassStatistic:
    """One class of an image; `share` is 0..1 of its pixels."""

    id: int
    name: str
    pixels: int
    share: float


def class_statistics(classes_HW: np.ndarray, table: ClassTable) -> list[ClassStatistic]:
    """The classes that are in a mask, the largest first."""
    counts = count_pixels(classes_HW, len(table))
    order = sorted((i for i, count in enumerate(counts) if count), key=lambda i: -counts[i])
    return [
        ClassStatistic(
            id=i,
            name=table.classes[i].name,
            pixels=counts[i],
            share=counts[i] / classes_HW.size,
        )
        for i in order
    ]


def statistics_text(statistics: Sequence[ClassStatistic], table: ClassTable) -> str:
    """Lines of class, pixels and per cent in columns, and the classes that are not there."""
    width = max(len("class"), *(len(s.name) for s in statistics))
    lines = [f"{'class':{width}}  {'pixels':>11}  per cent"]
    lines += [f"{s.name:{width}}  {s.pixels:11}  {100 * s.share:8.3f}" for s in statistics]
    lines.append(f"{'total':{width}}  {sum(s.pixels for s in statistics):11}  {100:8.3f}")
    present = {s.id for s in statistics}
    absent = [name for i, name in enumerate(table.names) if i not in present]
    return "\n".join([*lines, "", f"not in the image: {', '.join(absent) or 'none'}", ""])
