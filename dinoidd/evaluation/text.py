"""An evaluation in words and columns, for a terminal and a text file."""

from collections.abc import Iterator, Sequence
from typing import Any

from dinoidd.classes import TABLE
from dinoidd.evaluation.comparison import (
    ABSENT,
    BETTER,
    NOT_JUDGED,
    SAME,
    UNITS_NEEDED,
    WORSE,
    verdict_text,
)
from dinoidd.evaluation.scores import OFFICIAL_SLIP

_SHOWN = 10  # files or frames of a kind; the JSON has all


def as_text(result: dict[str, Any]) -> str:
    """The whole result."""
    parts = [
        _head(result),
        _means(result),
        _classes(result),
        _drives(result),
        _missing(result),
        _problems(result),
        (f"note: {note}" for note in result["notes"]),
    ]
    if "comparison" in result:
        parts.append(_comparison(result["comparison"]))
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _head(result: dict[str, Any]) -> Iterator[str]:
    settings, frames = result["settings"], result["frames"]
    size = "{}x{}".format(*settings["size"]) if settings["size"] else "the labels' own size"
    rate = 60 * frames["evaluated"] / max(frames["seconds"], 1e-9)
    yield f"ground truth  {result['ground_truth']}"
    yield f"predictions   {result['predictions']}"
    encoding = f", encoding {settings['encoding']}" if settings["encoding"] != TABLE else ""
    yield f"classes       {settings['classes']}{encoding}"
    yield (
        f"frames        {frames['evaluated']:,} at {size} ({settings['resizing']}), "
        f"{frames['seconds']:.1f} s, {rate:,.0f} a minute"
    )
    for problem in result["problems"]:
        if problem["contradicts"]:
            yield f"WARNING       the figures may mean nothing: {problem['file']}: {problem['what']}"


def _means(result: dict[str, Any]) -> Iterator[str]:
    intervals, boundary = result["intervals"], result["boundary"]
    for name, level in result["levels"].items():
        if name == OFFICIAL_SLIP and level["mean_iou"] is None:
            continue
        is_finest = name == result["finest_level"]
        ends = _interval(intervals["mean_iou"]) if is_finest else ""
        note = level["presence"]
        if name == OFFICIAL_SLIP:
            name, note = "level1, official", "the official script's slip; do not report it"
        yield f"{'mean IoU ' + name:<26}{_percent(level['mean_iou'])} {ends:<15} {note}"
    accuracy = result["levels"][result["finest_level"]]["pixel_accuracy"]
    ends = _interval(intervals["pixel_accuracy"])
    yield f"{'pixel accuracy':<26}{_percent(accuracy)} {ends:<15} of the labelled pixels"
    widths = boundary["dilation_pixels"]
    pixels = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    width = f"{boundary['dilation_share_of_diagonal']:.2%} of the diagonal ({pixels} px)"
    yield f"{'mean boundary IoU':<26}{_percent(boundary['mean_iou'])} {'':<15} boundary width {width}"
    if intervals["mean_iou"]:
        yield (
            f"[{intervals['level']:.0%} intervals: {intervals['units']:,} {intervals['resampled']} drawn "
            f"anew {intervals['samples']:,} times, seed {intervals['seed']}"
            f"{_rough(intervals['units'], intervals['resampled'])}]"
        )
    else:
        yield "[no intervals: there is one frame]"


def _classes(result: dict[str, Any]) -> Iterator[str]:
    classes = result["levels"][result["finest_level"]]["classes"]
    width = max(len(entry["name"]) for entry in classes) + 2
    pixels = sum(entry["truth_pixels"] for entry in classes) or 1
    yield (
        f"{'class':<{width}}{'IoU':>6} {'interval':<15}{'precision':>10}{'recall':>8}{'boundary':>10}"
        f"{'pixels':>9}"
    )
    for entry in classes:
        name = entry["name"]
        ends = _interval(result["intervals"]["classes"].get(name))
        yield (
            f"{name:<{width}}{_percent(entry['iou'])} {ends:<15}{_percent(entry['precision']):>10}"
            f"{_percent(entry['recall']):>8}{_percent(result['boundary']['classes'][name]):>10}"
            f"{entry['truth_pixels'] / pixels:>9.2%}"
        )


def _drives(result: dict[str, Any]) -> Iterator[str]:
    drives = sorted(result["drives"], key=lambda drive: drive["mean_iou"] or 0.0)
    if len(drives) < 2:
        return
    fewest = min((d["frames"] for d in drives[:_SHOWN] if d["mean_iou_interval"]), default=None)
    yield f"drives, worst first{_more(drives)}{_rough(fewest, 'frames')}"
    width = max(len(drive["drive"]) for drive in drives[:_SHOWN]) + 2
    yield (
        f"{'drive':<{width}}{'frames':>7}{'mean IoU':>10} {'interval':<15}{'accuracy':>10}"
        f"{'classes':>9}"
    )
    for drive in drives[:_SHOWN]:
        yield (
            f"{drive['drive']:<{width}}{drive['frames']:>7,}{_percent(drive['mean_iou']):>10} "
            f"{_interval(drive['mean_iou_interval']):<15}{_percent(drive['pixel_accuracy']):>10}"
            f"{drive['classes_present']:>9}"
        )


def _missing(result: dict[str, Any]) -> Iterator[str]:
    for key, what in (
        ("without_prediction", "labelled frames without a prediction"),
        ("without_label", "predicted frames without a label"),
    ):
        frames = result["frames"][key]
        if frames:
            yield f"{what}: {len(frames):,}{_more(frames)}: {', '.join(frames[:_SHOWN])}"
    for split, count in result["frames"]["of_other_splits"].items():
        yield f"predictions of split {split}, left out: {count:,}"


def _problems(result: dict[str, Any]) -> Iterator[str]:
    problems = result["problems"]
    if not problems:
        return
    lost = sum(not problem["counted"] for problem in problems)
    yield f"problems: {len(problems):,}, of which {lost:,} keep a frame out{_more(problems)}"
    for problem in problems[:_SHOWN]:
        yield f"- {problem['file']}: {problem['what']}"


def _comparison(comparison: dict[str, Any]) -> Iterator[str]:
    yield f"against {comparison['other']}, {comparison['frames']:,} frames of both"
    yield (
        f"[differences in percentage points; {comparison['level']:.0%} intervals by drawing frames anew "
        f"{comparison['samples']:,} times, both runs alike, seed {comparison['seed']}"
        f"{_rough(comparison['frames'], 'frames')}]"
    )
    mean, accuracy = comparison["mean_iou"], comparison["pixel_accuracy"]
    shared = f"mean IoU of {mean['classes']} classes in both"
    rows = [{"name": shared} | mean, {"name": "pixel accuracy"} | accuracy]
    rows += sorted(comparison["classes"], key=_rank)
    width = max(len(row["name"]) for row in rows) + 2
    for row in rows:
        judged = verdict_text(row["verdict"], row["frames"])
        yield f"{row['name']:<{width}}{_change(row)}{judged}"
    yield from _conclusion(comparison)


def _conclusion(comparison: dict[str, Any]) -> Iterator[str]:
    """What changed by more than chance; "no class" only where classes were judged."""
    frames, unjudged = comparison["frames"], comparison["not_judged"]
    if frames < UNITS_NEEDED:
        yield verdict_text(NOT_JUDGED, frames)
        return
    known = sum(c["difference"] is not None for c in comparison["classes"])
    judged = known - len(unjudged)
    if judged:
        for verdict in (BETTER, WORSE):
            yield f"{verdict} by more than chance: {', '.join(comparison[verdict]) or 'no class'}"
        by_chance = judged * (1 - comparison["level"])
        yield f"(of {judged} classes about {by_chance:.1f} would seem changed by chance alone)"
    if unjudged:
        yield f"not judged, in fewer than {UNITS_NEEDED} frames: {', '.join(unjudged)}"


def _rank(entry: dict[str, Any]) -> tuple[int, float]:
    """Changed by more than chance, other changes, none; within these the best first."""
    verdict = entry["verdict"]
    order = 0 if verdict in (BETTER, WORSE) else 2 if verdict in (SAME, ABSENT) else 1
    return order, -(entry["difference"] or 0.0)


def _change(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return f"{_percent(row['there'])} -> {_percent(row['here'])}  {'':<24}"
    low, high = row["interval"] or (row["difference"],) * 2
    ends = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    change = f"{100 * row['difference']:+6.1f}"
    return f"{_percent(row['there'])} -> {_percent(row['here'])}  {change} {ends:<17}"


def _rough(units: int | None, kind: str) -> str:
    """Percentile intervals of few units are too narrow, and a mean's is biased by rare classes."""
    few = units is not None and units < UNITS_NEEDED
    return f"; intervals of fewer than {UNITS_NEEDED} {kind} are rough" if few else ""


def _more(items: Sequence[Any]) -> str:
    return f" (the first {_SHOWN})" if len(items) > _SHOWN else ""


def _percent(value: float | None) -> str:
    return "     -" if value is None else f"{100 * value:6.2f}"


def _interval(ends: Sequence[float] | None) -> str:
    return "[{:.1f}, {:.1f}]".format(*(100 * end for end in ends)) if ends else ""
