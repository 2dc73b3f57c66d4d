"""The label images of a folder: ground truth, or predictions saved as such."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dinoidd.data.listing import list_images
from dinoidd.errors import InputError
from dinoidd.evaluation.frames import Frame, frame_of, label_suffix
from dinoidd.storage import StorageOptions, normalise

OFFICIAL = "labellevel3Ids"


@dataclass(frozen=True, kw_only=True)
class LabelFiles:
    """Frames and their PNGs, in the listing's order; `repeated` are those of a frame seen before."""

    root: str
    uris: dict[Frame, str]
    repeated: list[tuple[Frame, str]]


def list_label_files(
    uri: str, options: StorageOptions, suffix: str | None = None, *, required: bool = True
) -> LabelFiles:
    """The PNGs below a folder, one a frame.

    In a folder with several kinds of `NAME_gtFine_KIND.png` those of `suffix` count, or (where it is
    not given, or not `required`) those of `labellevel3Ids`; other names are taken as they are.

    Raises:
        InputError, StorageError: the folder cannot be listed, or holds no PNG of that kind.
    """
    root = normalise(uri)
    found = [image.uri for image in list_images(uri, options) if image.uri.lower().endswith(".png")]
    wanted = _wanted(Counter(map(label_suffix, found)), root, suffix, required)
    uris: dict[Frame, str] = {}
    repeated = []
    for path in found:
        frame = frame_of(path, root)
        if label_suffix(path) != wanted:
            continue
        if frame in uris:
            repeated.append((frame, path))
        else:
            uris[frame] = path
    return LabelFiles(root=root, uris=uris, repeated=repeated)


def _wanted(
    kinds: Counter[str | None], root: str, suffix: str | None, required: bool
) -> str | None:
    """Which kind of file counts: a suffix, or None for plain names."""
    if not kinds:
        raise InputError(f"{root} holds no PNG: give a folder of label images")
    if suffix in kinds and suffix is not None:
        return suffix
    if suffix is None or not required:
        if OFFICIAL in kinds:
            return OFFICIAL
        if len(kinds) == 1:
            return next(iter(kinds))
    there = ", ".join(sorted(k for k in kinds if k is not None)) or "none"
    raise InputError(
        f"{root} holds no *_gtFine_{suffix or OFFICIAL}.png (kinds there: {there}, and "
        f"{kinds[None]:,} other PNGs): choose one with --label-suffix"
    )


def in_order(files: LabelFiles) -> Iterator[tuple[Frame, str]]:
    """Every file with its frame, repeated ones last."""
    yield from files.uris.items()
    yield from files.repeated
