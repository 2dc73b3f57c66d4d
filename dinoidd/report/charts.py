"""Charts as inline SVG and as bars of HTML; their inks follow the page's theme."""

from collections.abc import Sequence

from dinoidd.report.figures import BINS, ClassShare, Measure, Slice, Times
from dinoidd.report.markup import color, count, element, escape, percent

_WIDTH, _HEIGHT = 360, 150  # of a histogram
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 8, 22
_MOST_BARS = 50
_STEPS = (1, 2, 5, 10)  # bins a bar; all divide what _range() gives
_TIME_WIDTH, _BAND, _BAND_GAP = 1120, 90, 26  # of the chart over time
_TIME_LEFT = 64


def histogram(measure: Measure) -> str:
    """Counts over the part of 0..1 that holds any; a line marks the median."""
    low, high = _range(measure.bins)
    step = next(s for s in _STEPS if (high - low) // s <= _MOST_BARS)
    bars = [sum(measure.bins[i : i + step]) for i in range(low, high, step)]
    span = len(bars) * step
    inner, peak = _WIDTH - _LEFT - _RIGHT, max(bars)
    base = _HEIGHT - _BOTTOM
    parts = []
    for index, images in enumerate(bars):
        height = (base - _TOP) * images / peak
        start = (low + index * step) / BINS
        parts.append(
            f'<rect class="bar" x="{_LEFT + inner * index / len(bars):.1f}" '
            f'y="{base - height:.1f}" width="{inner / len(bars) - 1:.1f}" height="{height:.1f}">'
            f"<title>{start:.3f} to {start + step / BINS:.3f}: {count(images)}</title></rect>"
        )
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    )
    middle = _LEFT + inner * (measure.quantiles[1] * BINS - low) / span
    parts.append(
        f'<line class="mark" x1="{middle:.1f}" x2="{middle:.1f}" y1="{_TOP}" y2="{base}"/>'
    )
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        value = (low + share * span) / BINS
        x = _LEFT + inner * share
        parts.append(_label(x, _HEIGHT - 6, f"{value:.2f}", anchor))
    label = (
        f"Histogram of {measure.name}: median {measure.quantiles[1]:.3f}, 5 to 95 percent between "
        f"{measure.quantiles[0]:.3f} and {measure.quantiles[2]:.3f}"
    )
    return _svg(_WIDTH, _HEIGHT, label, "".join(parts))


def _range(bins: Sequence[int]) -> tuple[int, int]:
    """First and last bin that hold any, rounded outwards to twentieths."""
    held = [i for i, images in enumerate(bins) if images]
    unit = BINS // 20
    return held[0] // unit * unit, -(-(held[-1] + 1) // unit) * unit


def over_time(times: Times, classes: Sequence[ClassShare]) -> str:
    """Images and errors, mean confidence, and the mix of classes, above one axis of time."""
    first, last = times.slices[0].start, times.slices[-1].start + times.seconds
    scale = (_TIME_WIDTH - _TIME_LEFT) / (last - first)
    width = max(1.0, times.seconds * scale - 1)
    places = [(_TIME_LEFT + (s.start - first) * scale, width, s) for s in times.slices]
    bands = [_count_band(places), _confidence_band(places), _mix_band(places, classes)]
    parts = []
    for index, (name, top, body) in enumerate(bands):
        y = 16 + index * (_BAND + _BAND_GAP)
        parts.append(
            f'<g transform="translate(0 {y})">{_label(0, -4, name, "start")}{body}'
            f'<line class="axis" x1="{_TIME_LEFT}" x2="{_TIME_WIDTH}" y1="{_BAND}" y2="{_BAND}"/>'
            f"{_label(_TIME_LEFT - 6, 10, top, 'end')}{_label(_TIME_LEFT - 6, _BAND, '0', 'end')}</g>"
        )
    bottom = 16 + len(bands) * (_BAND + _BAND_GAP)
    for place in range(0, len(places), max(1, -(-len(places) // 6))):
        x, _, piece = places[place]
        parts.append(_label(x, bottom - 8, piece.label, "start"))
    label = (
        f"Images, mean confidence and classes over time, from {times.slices[0].label} to "
        f"{times.slices[-1].label}"
    )
    return _svg(_TIME_WIDTH, bottom, label, "".join(parts))


Places = list[tuple[float, float, Slice]]


def _count_band(places: Places) -> tuple[str, str, str]:
    peak = max(piece.images for _, _, piece in places)
    parts = []
    for x, width, piece in places:
        tip = f"{escape(piece.label)}: {count(piece.images)} images, {count(piece.errors)} errors"
        for name, value in (("bar", piece.images), ("bad", piece.errors)):
            height = _BAND * value / peak
            parts.append(_rect(x, _BAND - height, width, height, f'class="{name}"', tip))
    return "Images (errors in red)", count(peak), "".join(parts)


def _confidence_band(places: Places) -> tuple[str, str, str]:
    parts = []
    for x, width, piece in places:
        if piece.confidence is not None:
            height = _BAND * piece.confidence
            tip = f"{escape(piece.label)}: mean confidence {piece.confidence:.3f}"
            parts.append(_rect(x, _BAND - height, width, height, 'class="bar soft"', tip))
    return "Mean confidence", "1", "".join(parts)


def _mix_band(places: Places, classes: Sequence[ClassShare]) -> tuple[str, str, str]:
    parts = []
    for x, width, piece in places:
        y, whole = 0.0, sum(piece.pixels) or 1
        for info, pixels in zip(classes, piece.pixels, strict=True):
            height = _BAND * pixels / whole
            if height >= 0.2:
                tip = f"{escape(piece.label)}: {escape(info.name)} {percent(pixels / whole)}"
                parts.append(_rect(x, y, width, height, f'fill="{color(info.color)}"', tip))
            y += height
    return "Share of pixels by class", "100 %", "".join(parts)


def mix_bar(piece: Slice, classes: Sequence[ClassShare]) -> str:
    """The classes of a folder as one bar of colours."""
    whole = sum(piece.pixels)
    if not whole:
        return ""
    shares = [(info, p / whole) for info, p in zip(classes, piece.pixels, strict=True) if p]
    parts = "".join(
        element(
            "span",
            title=f"{info.name} {percent(share)}",
            style=f"width:{100 * share:.2f}%;background:{color(info.color)}",
        )
        for info, share in shares
        if share >= 0.001
    )
    largest = sorted(shares, key=lambda s: -s[1])[:3]
    label = ", ".join(f"{info.name} {percent(share)}" for info, share in largest)
    return element("div", parts, class_="mix", role="img", aria_label=label)


def share_bar(share: float, fill: str | None = None) -> str:
    """A thin bar, full at 1; decoration of the number behind it."""
    style = f"width:{100 * min(1.0, share):.2f}%" + (f";background:{fill}" if fill else "")
    return f'<span class="share" aria-hidden="true"><span style="{style}"></span></span>'


def _rect(x: float, y: float, width: float, height: float, paint: str, tip: str) -> str:
    return (
        f'<rect {paint} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{tip}</title></rect>"
    )


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, label: str, body: str) -> str:
    return element("svg", body, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)
