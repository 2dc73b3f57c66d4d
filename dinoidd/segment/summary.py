"""What a run came to, for a person and for run.json."""

from typing import Any

from dinoidd.classes import ClassTable
from dinoidd.log import duration
from dinoidd.segment.pace import Pace
from dinoidd.segment.tally import SECONDS, Tally

_LARGEST = 10


def summarise(
    tally: Tally, seconds: dict[str, float], table: ClassTable, pace: Pace
) -> dict[str, Any]:
    """Figures of a finished run; `seconds` by stage and the pace are of its last session alone."""
    worked = {stage: seconds[stage] for stage in SECONDS}
    return outcome(tally, table) | {"session": pace.to_dict(), "stage_seconds": worked}


def outcome(tally: Tally, table: ClassTable) -> dict[str, Any]:
    """The figures that follow from the output's files alone."""
    pixels = sum(tally.pixels.values())
    names = dict(zip(table.fields, table.names, strict=True))
    present = [field for field, count in tally.pixels.most_common(_LARGEST) if count]
    return {
        "images": tally.images,
        "ok": tally.ok,
        "errors": dict(tally.errors.most_common()),
        "error_rate": tally.error_rate,
        "bytes_read": tally.bytes_read,
        "bytes_written": tally.bytes_written,
        "largest_classes": [
            {
                "name": names[field],
                "share_of_pixels": tally.pixels[field] / pixels if pixels else 0.0,
                "share_of_images": tally.images_with[field] / tally.ok if tally.ok else 0.0,
            }
            for field in present
        ],
    }


def format_summary(summary: dict[str, Any]) -> str:
    """The same as lines of text."""
    session = summary["session"]
    lines = [
        f"images   {summary['images']:,} ({summary['ok']:,} ok, "
        f"{summary['images'] - summary['ok']:,} errors)",
        f"session  {session['images']:,} images in {duration(session['seconds'])} "
        f"({session['images_per_second']:.1f} images/s), the first rows after "
        f"{duration(session['startup_seconds'])}",
    ]
    if summary["errors"]:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in summary["errors"].items())
        lines.append(f"errors   {kinds}")
    lines.append(
        f"bytes    {size_text(summary['bytes_read'])} read, {size_text(summary['bytes_written'])} written"
    )
    lines.append(f"time     {_stages(summary['stage_seconds'])}")
    lines.append("classes  (share of pixels; of images)")
    for entry in summary["largest_classes"]:
        shares = f"{entry['share_of_pixels']:7.2%} {entry['share_of_images']:7.1%}"
        lines.append(f"         {entry['name']:22} {shares}")
    return "\n".join(lines)


def _stages(seconds: dict[str, float]) -> str:
    """Where the time went, as shares of the working seconds of all stages."""
    whole = sum(seconds.values()) or 1.0
    return ", ".join(f"{stage} {value / whole:.0%}" for stage, value in seconds.items())


def size_text(count: float) -> str:
    """`512 B`, `1.5 MB`, `2.25 TB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
