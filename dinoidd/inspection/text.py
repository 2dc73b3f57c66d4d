"""An inspection as text."""

from collections import Counter
from collections.abc import Iterator, Sequence

from dinoidd.data.inspect import Inspection
from dinoidd.data.inspect_warnings import percent
from dinoidd.data.label_counts import raw_name

_SIZES = 6  # shown
_VALUES = 40


def describe(found: Inspection, warnings: Sequence[str]) -> str:
    """The whole report for a terminal."""
    parts = (
        [f"{found.root}, {found.read_as}"],
        _splits(found),
        _values(found),
        _classes(found),
        _warnings(warnings),
    )
    return "\n\n".join("\n".join(lines) for lines in parts)


def _splits(found: Inspection) -> Iterator[str]:
    names = ("images", "label images", "polygons", "no label", "no image")
    yield f"{'split':<10}" + "".join(f"{name:>14}" for name in names)
    rows = [*found.splits.items(), ("all", found.total)]
    for name, tally in rows:
        counts = (
            tally.frames,
            tally.labels,
            tally.polygons,
            tally.without_label.count,
            tally.without_image.count,
        )
        yield f"{name:<10}" + "".join(f"{count:>14,}" for count in counts)
    total = found.total
    yield f"sizes of images: {_most(total.sizes)}"
    yield f"sizes of labels: {_most(total.label_sizes)}"


def _most(sizes: Counter[str]) -> str:
    shown = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(_SIZES))
    more = f" and {len(sizes) - _SIZES} more" if len(sizes) > _SIZES else ""
    return f"{shown}{more}" if shown else "none"


def _values(found: Inspection) -> Iterator[str]:
    total = found.total
    shown = ", ".join(
        f"{raw_name(value)}: {percent(total.raw_pixels[value] / max(1, total.pixels))}"
        for value in sorted(total.raw_pixels)[:_VALUES]
    )
    more = len(total.raw_pixels) - _VALUES
    yield f"raw values, of all pixels: {shown}{f' and {more} more' if more > 0 else ''}"
    if found.verdict is not None:
        yield f"encoding: {found.verdict.encoding} ({found.verdict.sentence})"


def _classes(found: Inspection) -> Iterator[str]:
    width = max(len(name) for name in found.table.names) + 2
    yield f"classes in {found.total.labels_read:,} label images"
    yield f"{'class':<{width}}{'of pixels':>12}{'of images':>12}"
    for share in found.classes():
        pixels, images = 100 * share.pixel_share, 100 * share.image_share
        yield f"{share.name:<{width}}{pixels:>10.3f} %{images:>10.1f} %"


def _warnings(warnings: Sequence[str]) -> Iterator[str]:
    if not warnings:
        yield "nothing odd was found"
        return
    yield f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}:"
    yield from (f"- {warning}" for warning in warnings)
