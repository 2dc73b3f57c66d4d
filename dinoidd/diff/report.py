"""A comparison as data for JSON, and as text for a terminal."""

from collections.abc import Sequence
from typing import Any

from dinoidd.diff.comparison import Comparison
from dinoidd.diff.image import ImageDiff
from dinoidd.output.reader import RunReader
from dinoidd.output.schema import METADATA_FINGERPRINT

_WORST = 10  # lines of images
_ADDRESSES = 5  # of each kind of images that were left out
REASONS = {
    "only_in_a": "only in A",
    "only_in_b": "only in B",
    "error_in_a": "an error in A",
    "error_in_b": "an error in B",
    "error_in_both": "an error in both",
    "other_size": "masks of different sizes",
    "broken_mask": "a mask that cannot be read",
}


def to_dict(a: RunReader, b: RunReader, comparison: Comparison) -> dict[str, Any]:
    """Everything but the list of all images; shares are 0..1, what does not exist is None."""
    worst = [image_dict(i) for i in _different(comparison)]
    return {
        "a": _run_dict(a),
        "b": _run_dict(b),
        "class_table": a.table.name,
        "images_compared": comparison.images,
        "images_left_out": comparison.left_out,
        "images_left_out_named": comparison.named,
        "pixels": comparison.pixels,
        "equal_share": comparison.equal_share if comparison.pixels else None,
        "equal_share_per_image": comparison.per_image(),
        "classes": comparison.classes(),
        "changes": comparison.changes(),
        "confusion": comparison.matrix[:-1, :-1].tolist(),  # rows A, columns B, in class order
        "most_different": worst,
    }


def image_dict(image: ImageDiff) -> dict[str, Any]:
    """One image that was compared."""
    return {"uri": image.uri, "equal_share": image.equal_share, "pixels": image.pixels}


def to_text(a: RunReader, b: RunReader, comparison: Comparison) -> str:
    """What a person wants to know, on one or two screens."""
    lines = [f"A  {_run_line(a)}", f"B  {_run_line(b)}", ""]
    lines += [*_left_out(comparison)]
    if not comparison.images:
        return "\n".join([*lines, "no image could be compared"])
    lines += [*_overall(comparison), "", *_classes(comparison)]
    if comparison.equal_share < 1:
        lines += ["", *_changes(comparison), "", *_most_different(comparison)]
    return "\n".join(lines)


def _different(comparison: Comparison) -> Sequence[ImageDiff]:
    return [i for i in comparison.most_different() if i.equal < i.pixels]


def _run_dict(run: RunReader) -> dict[str, Any]:
    return {"uri": run.uri, "finished": run.finished, "model_fingerprint": _fingerprint(run)}


def _fingerprint(run: RunReader) -> str:
    return (run.images().schema.metadata or {}).get(METADATA_FINGERPRINT, b"").decode()


def _run_line(run: RunReader) -> str:
    state = "" if run.finished else ", not finished"
    return f"{run.uri} (model {_fingerprint(run)[:8] or 'unknown'}{state})"


def _left_out(comparison: Comparison) -> list[str]:
    lines = []
    for kind, count in comparison.left_out.items():
        named = comparison.named[kind][:_ADDRESSES]
        lines.append(f"not compared: {count:,} with {REASONS[kind]}".replace("with only", "only"))
        lines += [f"  {uri}" for uri in named]
        lines += [f"  and {count - len(named):,} more"] * (count > len(named))
    return [*lines, ""] if lines else []


def _overall(comparison: Comparison) -> list[str]:
    image = comparison.per_image()
    return [
        f"{comparison.images:,} images compared, {comparison.pixels:,} pixels",
        f"equal pixels: {_percent(comparison.equal_share)} of all; per image {_percent(image['mean'])} "
        f"on average, median {_percent(image['median'])}, 5 % of images below "
        f"{_percent(image['p05'])}, least {_percent(image['least'])}",
        f"{image['equal_images']:,} of {comparison.images:,} images are equal in every pixel",
    ]


def _classes(comparison: Comparison) -> list[str]:
    present = [c for c in comparison.classes() if c["iou"] is not None]
    present.sort(key=lambda c: -(c["lost"] + c["gained"]))
    width = max(len("class"), *(len(c["name"]) for c in present))
    head = f"{'class':{width}} {'in A':>10} {'in B':>10} {'lost':>14} {'gained':>14} {'IoU':>7}"
    lines = [head]
    for c in present:
        shares = (_percent(c[key] / comparison.pixels) for key in ("pixels_a", "pixels_b"))
        in_a, in_b = shares
        lines.append(
            f"{c['name']:{width}} {in_a:>10} {in_b:>10} {c['lost']:>14,} {c['gained']:>14,} "
            f"{c['iou']:>7.4f}"
        )
    absent = [c["name"] for c in comparison.classes() if c["iou"] is None]
    return [*lines, *([f"in neither: {', '.join(absent)}"] if absent else [])]


def _changes(comparison: Comparison) -> list[str]:
    changes = comparison.changes()
    names = [f"{c['from']} → {c['to']}" for c in changes]
    width = max(map(len, names))
    lines = [f"{'most frequent changes':{width}} {'pixels':>14}   of all  of class"]
    for name, c in zip(names, changes, strict=True):
        share, of_class = _percent(c["share"]), _percent(c["share_of_class"])
        lines.append(f"{name:{width}} {c['pixels']:>14,} {share:>8} {of_class:>9}")
    return lines


def _most_different(comparison: Comparison) -> list[str]:
    worst = _different(comparison)[:_WORST]
    return ["  differ  image", *(f"{_percent(1 - i.equal_share):>8}  {i.uri}" for i in worst)]


def _percent(share: float) -> str:
    """Never rounded to 0 or 100 per cent where it is not."""
    text = f"{100 * share:.2f}"
    if text == "0.00" and share > 0:
        return "<0.01 %"
    return ">99.99 %" if text == "100.00" and share < 1 else f"{text} %"
