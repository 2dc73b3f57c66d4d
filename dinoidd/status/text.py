"""A look at a run as lines of text, one line, or plain values."""

from typing import Any

from dinoidd.log import duration
from dinoidd.status.look import STOPPED, Look


def block(look: Look) -> str:
    """All about it."""
    lines = [line(look)]
    if look.images:
        lines.append(f"errors    {_errors(look)}")
    if look.seconds_since_progress is not None:
        lines.append(
            f"progress  the last piece was done {duration(look.seconds_since_progress)} ago"
        )
    if look.session is not None:
        lines.append(f"session   {look.session}")
    if look.state == STOPPED:
        lines.append("stopped   nobody works on it; the same command again resumes it")
    for name in ("started", "finished"):
        if value := getattr(look, name):
            lines.append(f"{name:<9} {value}")
    return "\n".join(lines)


def line(look: Look) -> str:
    """`OUTPUT: working, 1,280 of 10,000 images (12.8%), 21.3 images/s, 6m49s left`."""
    text = f"{look.output}: {look.state}"
    if not look.images:
        return text
    text += f", {look.done:,} of {look.images:,} images ({look.done / look.images:.1%})"
    text += f", {look.left:,} left" if look.left else ""
    text += f", {sum(look.errors.values()):,} errors"
    if look.images_per_second is not None:
        text += f", {look.images_per_second:.1f} images/s"
    if look.seconds_left is not None:
        text += f", about {duration(look.seconds_left)} to go"
    return text


def _errors(look: Look) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in look.errors.items())
    return f"{sum(look.errors.values()):,}" + (f" ({kinds})" if kinds else "")


def to_dict(look: Look) -> dict[str, Any]:
    """Plain values; `left` too."""
    values = {name: getattr(look, name) for name in look.__dataclass_fields__}
    session = look.session
    return values | {
        "left": look.left,
        "session": None
        if session is None
        else {n: getattr(session, n) for n in ("what", "host", "pid", "since")},
    }
