"""What is odd about a data set, in plain words."""

from collections.abc import Iterator

from dinoidd.data.inspect import Inspection, splits_of_names
from dinoidd.data.label_counts import Findings, Tally, color_of
from dinoidd.data.label_image import COLOR

_MUCH_VOID = 0.2  # share of pixels
_RARE = 0.01  # share of images


def find_warnings(found: Inspection) -> list[str]:
    """One sentence for each thing that a person should look at."""
    total = found.total
    return [
        *_split_warnings(found),
        *_file_warnings(found, total),
        *_encoding_warnings(found, total),
        *_class_warnings(found, total),
    ]


def _split_warnings(found: Inspection) -> Iterator[str]:
    for name, tally in found.splits.items():
        if not tally.labels and not tally.polygons:
            yield f"{name}: not one of {tally.frames:,} frames has a label (IDD's test split is so)"
            continue
        if tally.without_label.count:
            yield f"{name}: an image and no label: {_these(tally.without_label)}"
        if tally.only_polygons.count:
            yield (
                f"{name}: polygons and no label image: {_these(tally.only_polygons)}; "
                f"`dinoidd data labels --root {found.root}` draws them"
            )
        if tally.without_image.count:
            yield f"{name}: a label and no image: {_these(tally.without_image)}"


def _file_warnings(found: Inspection, total: Tally) -> Iterator[str]:
    if total.broken.count:
        yield f"files that cannot be read: {_these(total.broken, 'file')}"
    if total.other_size.count:
        yield f"label and image differ in size: {_these(total.other_size)}"
    if doubles := found.files.doubles:
        what = "file is" if len(doubles) == 1 else "files are"
        yield (
            f"{len(doubles):,} {what} a second image or label of the same frame, such as {doubles[0]}"
        )
    if double := splits_of_names(found.files):
        name, splits = next(iter(double.items()))
        yield (
            f"{len(double):,} names are in more than one split, such as {name} in "
            f"{' and '.join(sorted(splits))}: is it the same picture?"
        )
    other = {name: n for name, n in found.files.other.items() if name.startswith("_gtFine_label")}
    if other and not total.labels:
        kinds = ", ".join(f"{n:,} *{name}" for name, n in other.items())
        yield f"there are label images of other encodings ({kinds}): name theirs with --label-suffix"


def _encoding_warnings(found: Inspection, total: Tally) -> Iterator[str]:
    verdict = found.verdict
    if verdict is not None and total.labels_read:
        if not verdict.clear:
            yield verdict.sentence
        if verdict.is_idd and verdict.encoding != found.encoding:
            yield (
                f"the label images were read as `{found.encoding}`, and they fit "
                f"`{verdict.encoding}`: {verdict.sentence}"
            )
        elif verdict.encoding == "road255":
            yield f"{verdict.sentence}; read officially, all road would be ignored"
    counts = total.classes.get(found.encoding)
    if counts is not None and counts.unmapped:
        shown = [_raw(value) for value, _ in counts.unmapped.most_common(8)]
        share = sum(counts.unmapped.values()) / max(1, total.pixels)
        more = f" and {len(counts.unmapped) - 8} more" if len(counts.unmapped) > 8 else ""
        yield (
            f"raw values that class table '{found.table.name}' does not name: "
            f"{', '.join(shown)}{more} ({percent(share)} of the pixels)"
        )


def _class_warnings(found: Inspection, total: Tally) -> Iterator[str]:
    if not total.labels_read:
        return
    *classes, void = found.classes()
    if void.pixel_share > _MUCH_VOID:
        yield f"{percent(void.pixel_share)} of the pixels are void, and nothing is learned from them"
    if absent := [c.name for c in classes if not c.images]:
        yield f"classes without a pixel: {', '.join(absent)}"
    if rare := [c for c in classes if 0 < c.image_share < _RARE]:
        names = ", ".join(f"{c.name} ({percent(c.image_share)})" for c in rare)
        yield f"classes in fewer than {percent(_RARE)} of the images: {names}"
    for name, tally in found.splits.items():
        if name != "train" and tally.labels_read and "train" in found.splits:
            yield from _not_trained(found, name)


def _not_trained(found: Inspection, split: str) -> Iterator[str]:
    train = {c.name for c in found.classes("train") if c.images}
    here = [c.name for c in found.classes(split) if c.images and c.name not in train]
    here = [name for name in here if name != "void"]
    if train and here:
        yield f"{split} has classes that train lacks: {', '.join(here)}"


def _raw(value: int) -> str:
    """As in a class table's file."""
    return str(list(color_of(value)) if value & COLOR else value)


def _these(findings: Findings, thing: str = "frame") -> str:
    what = thing if findings.count == 1 else f"{thing}s"
    more = ", ..." if findings.count > 3 else ""
    return f"{findings.count:,} {what} ({', '.join(findings.examples[:3])}{more})"


def percent(share: float) -> str:
    """`12.3 %` of a share; small ones keep two digits."""
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"
