"""`--window` and what goes with it, of every command that segments images."""

import argparse

from dinoidd.config import BLENDS, TTA_SCALES, Windows
from dinoidd.errors import ConfigError

_NATIVE = "native"
_SIZE = 896  # where --tta is given without --window
_STRIDE = 596 / 896  # of the window: DINOv3's evaluation on ADE20K
_SCALES = ",".join(f"{scale:g}" for scale in TTA_SCALES)
_NAMES = ("window", "stride", "short_side", "blend", "tta")


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """Read them with `windows_of`."""
    title = "sliding window (instead of one square: finer, and slower)"
    add = parser.add_argument_group(title).add_argument
    add("--window", type=int, metavar="N", help="pixels of a window's side (896 with --tta)")
    add("--stride", type=int, metavar="N", help="from window to window (2/3 of one)")
    add("--short-side", metavar="N", help="of the image, or native (the window's side)")
    add("--blend", choices=BLENDS, help="hann: windows' middles weigh more (mean)")
    help_ = f"mean of scales and mirrors ({_SCALES})"
    add("--tta", nargs="?", const=_SCALES, metavar="SCALES", help=help_)


def windows_of(args: argparse.Namespace) -> Windows | None:
    """The windows that were asked for; None for whole images.

    Raises:
        ConfigError: they cannot be, or an option of theirs stands without --window.
    """
    if args.window is None and args.tta is None:
        for name in _NAMES:
            if getattr(args, name) is not None:
                option = f"--{name.replace('_', '-')} {getattr(args, name)}"
                raise ConfigError(f"{option} goes with --window N: whole images have no windows")
        return None
    size = _SIZE if args.window is None else args.window
    return Windows(
        size=size,
        stride=max(1, round(size * _STRIDE)) if args.stride is None else args.stride,
        short_side=_short_side(args.short_side, size),
        blend=args.blend or BLENDS[0],
        scales=(1.0,) if args.tta is None else _scales(args.tta),
        flip=args.tta is not None,
    )


def _short_side(text: str | None, size: int) -> int | None:
    if text is None or text == _NATIVE:
        return size if text is None else None
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--short-side {text}: pixels, or {_NATIVE}, are needed") from error


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--tta {text}: scales like {_SCALES} are needed") from error
