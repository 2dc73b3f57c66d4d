"""The label images of a folder: ground truth, or predictions saved as such."""

from collections import Counter
from dataclasses import dataclass

from dinoidd.classes import ClassTable
from dinoidd.data.frames import LABEL_KINDS, chosen_kind, label_kind
from dinoidd.data.listing import list_images
from dinoidd.errors import InputError
from dinoidd.evaluation.frames import Frame, frame_of
from dinoidd.storage import StorageOptions, normalise


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Which of the files `NAME_gtFine_KIND.png` count.

    `names` are tried in order; without any, the folder may hold one kind alone, whatever it is. In a
    folder with no such names the other PNGs count, unless not `plain`.
    """

    names: tuple[str, ...] = ()
    plain: bool = True
    advice: str = "choose one with --label-suffix"


def truth_kinds(table: ClassTable, suffix: str | None) -> Kinds:
    """Of ground truth: the one that --label-suffix names, or the table's. Raises ConfigError."""
    if suffix is not None:
        return Kinds(names=(chosen_kind(suffix, table),), plain=False)
    return Kinds(names=LABEL_KINDS.get(table.name, ()))


def prediction_kinds(table: str) -> Kinds:
    """Of predictions, which hold class ids: Cityscapes' are its train ids."""
    names = LABEL_KINDS.get("cityscapes_train_ids" if table == "cityscapes" else table, ())
    return Kinds(names=names, advice="predictions are class ids, call them NAME.png")


@dataclass(frozen=True, kw_only=True)
class LabelFiles:
    """Frames and their PNGs, in the listing's order; `repeated` are those of a frame seen before."""

    root: str
    uris: dict[Frame, str]
    repeated: list[tuple[Frame, str]]


def list_label_files(uri: str, options: StorageOptions, kinds: Kinds) -> LabelFiles:
    """The PNGs of one kind below a folder, one a frame.

    Raises:
        InputError, StorageError: the folder cannot be listed, or holds no PNG of that kind.
    """
    root = normalise(uri)
    found = [image.uri for image in list_images(uri, options) if image.uri.lower().endswith(".png")]
    wanted = _wanted(Counter(map(label_kind, found)), root, kinds)
    uris: dict[Frame, str] = {}
    repeated = []
    for path in found:
        if label_kind(path) != wanted:
            continue
        frame = frame_of(path, root)
        if frame in uris:
            repeated.append((frame, path))
        else:
            uris[frame] = path
    return LabelFiles(root=root, uris=uris, repeated=repeated)


def _wanted(there: Counter[str | None], root: str, kinds: Kinds) -> str | None:
    """Which kind of file counts; None: plain names."""
    if not there:
        raise InputError(f"{root} holds no PNG: give a folder of label images")
    for name in kinds.names:
        if name in there:
            return name
    (only, *others) = there
    if not others and (kinds.plain if only is None else not kinds.names):
        return only
    names = " or ".join(f"*_gtFine_{name}.png" for name in kinds.names)
    listed = ", ".join(sorted(kind for kind in there if kind is not None)) or "none"
    raise InputError(
        f"{root} holds {f'no {names}' if names else 'label images of several kinds'} (kinds there: "
        f"{listed}, and {there[None]:,} other PNGs): {kinds.advice}"
    )
