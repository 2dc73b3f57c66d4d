"""The frames of a data set: which images and labels there are, and which belong together."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from zlib import crc32

from dinoidd.classes import BUILT_IN, ClassTable
from dinoidd.data.listing import IMAGE_SUFFIXES, suffix_of
from dinoidd.errors import ConfigError, InputError
from dinoidd.storage import DEFAULT_OPTIONS, ObjectInfo, StorageOptions, Store, shown

# KIND of the label images NAME_gtFine_KIND.png that hold a class table's raw values, by table.
LABEL_KINDS = {
    "idd": ("labellevel3Ids",),
    "idd_level2": ("labellevel2Ids",),
    "idd_level1": ("labellevel1Ids",),
    "cityscapes": ("labelIds",),
    "cityscapes_train_ids": ("labelTrainIds", "labelcsTrainIds"),  # the latter are IDD's
}
_LABEL_KIND = re.compile(r"_gtFine_([A-Za-z0-9]+)\.[^./]+$")
_KIND = re.compile(r"[A-Za-z0-9]+")
POLYGONS_SUFFIX = "_gtFine_polygons.json"
_IMAGE_TAIL = re.compile(r"_leftImg8bit(?=\.[a-z]+$)", re.IGNORECASE)
_LABEL_FOLDERS = ("annotations", "labels", "masks")  # beside images/
LAYOUTS = (
    "leftImg8bit/SPLIT/DRIVE/NAME_leftImg8bit.png with gtFine/SPLIT/DRIVE/NAME_gtFine_label....png, "
    "images/SPLIT/NAME.jpg with annotations/SPLIT/NAME.png (or labels/, masks/), "
    "or SPLIT/NAME.png with SPLITannot/NAME.png"
)


@dataclass(slots=True, kw_only=True)
class Frame:
    """One frame: `train/0/001`, and the URIs of what there is of it."""

    key: str
    image: str | None = None
    label: str | None = None
    polygons: str | None = None
    # Of its files' sizes and ETags, or times where there are none: other files, another one.
    stamp: int = field(default=0, compare=False)

    @property
    def split(self) -> str:
        return self.key.partition("/")[0]


@dataclass(kw_only=True)
class Frames:
    """Every frame of a data set by its key, in order, and the files that belong to none."""

    frames: dict[str, Frame] = field(default_factory=dict)
    other: Counter[str] = field(default_factory=Counter)  # by what their names end in
    doubles: list[str] = field(default_factory=list)  # a second file for the same thing

    def add(self, kind: str, key: str, file: ObjectInfo) -> None:
        """Note a frame's `image`, `label` or `polygons`."""
        frame = self.frames.setdefault(key, Frame(key=key))
        if getattr(frame, kind) is not None:
            self.doubles.append(file.uri)
            return
        setattr(frame, kind, file.uri)
        frame.stamp ^= crc32(f"{kind} {file.size} {file.etag or file.modified}".encode())


Role = tuple[str, str] | None  # what a file is of its frame, and the frame's key


def find_frames(
    root: str,
    suffixes: tuple[str, ...] | None = None,
    options: StorageOptions = DEFAULT_OPTIONS,
) -> Frames:
    """List a data set, in a local folder or a bucket. About 300 bytes a frame are in memory.

    Args:
        suffixes: what the names of label images in gtFine/ end in; None: IDD's level 3.

    Raises:
        InputError: nothing there is in a layout that is known.
    """
    store = Store.open(root, options)
    found = Frames()
    for folder, role_of in _layout(store, suffixes or label_suffixes("idd")):
        for path, info in _files(folder):
            role = role_of(path)
            if role is None:
                found.other[_ending(path)] += 1
            else:
                found.add(*role, info)
    if not found.frames:
        raise InputError(f"{shown(store.uri)} holds no frames; known layouts are {LAYOUTS}")
    if not _is_dataset(store, found):
        raise InputError(
            f"{shown(store.uri)} holds {len(found.frames):,} images and not one label where they are "
            f"looked for: it is no data set; known layouts are {LAYOUTS}"
        )
    found.frames = dict(sorted(found.frames.items()))
    return found


def _is_dataset(store: Store, found: Frames) -> bool:
    """Folders of any names with images alone are none; IDD's leftImg8bit/ may lack labels."""
    is_idd_layout = any(store.child(name).is_folder() for name in ("leftImg8bit", "gtFine"))
    return is_idd_layout or any(frame.label for frame in found.frames.values())


def split_folders(
    root: str, split: str, options: StorageOptions = DEFAULT_OPTIONS
) -> tuple[str, str]:
    """The folders of a split's images and of its label images, in any known layout.

    Where there are no label images, those are named that IDD's layout has.
    """
    store = Store.open(root, options)
    layouts = [
        (("leftImg8bit", split), ("gtFine", split)),
        *((("images", split), (folder, split)) for folder in _LABEL_FOLDERS),
        ((split,), (f"{split}annot",)),
    ]
    there = (layout for layout in layouts if store.child(*layout[1]).is_folder())
    images, labels = next(there, layouts[0])
    return store.child(*images).uri, store.child(*labels).uri


def label_suffixes(table: str) -> tuple[str, ...]:
    """What the label images in gtFine/ end in; of tables that have no kind of their own, as IDD's."""
    return tuple(f"_gtFine_{kind}.png" for kind in LABEL_KINDS.get(table, LABEL_KINDS["idd"]))


def chosen_kind(text: str, table: ClassTable) -> str:
    """KIND of `--label-suffix KIND`, which may be given as `_gtFine_KIND.png` as well.

    Raises:
        ConfigError: it is neither, or the kind of another class table's label images.
    """
    kind = label_kind(text) or text
    if not _KIND.fullmatch(kind):
        raise ConfigError(
            f"--label-suffix {text}: give KIND of the label images NAME_gtFine_KIND.png"
        )
    built_in = BUILT_IN.get(table.name)
    if built_in is None or built_in.raw_values != table.raw_values:
        return kind  # a table of the user's own reads what it says
    of = [name for name, kinds in LABEL_KINDS.items() if kind in kinds]
    if of and table.name not in of:
        raise ConfigError(
            f"--label-suffix {text}: these label images hold the raw values of the class table "
            f"'{of[0]}', not of '{table.name}': use --classes {of[0]}"
        )
    return kind


def label_kind(path: str) -> str | None:
    """`labellevel3Ids` of `NAME_gtFine_labellevel3Ids.png`; None under other names."""
    match = _LABEL_KIND.search(path)
    return match[1] if match else None


def _layout(
    store: Store, suffixes: tuple[str, ...]
) -> Iterator[tuple[Store, Callable[[str], Role]]]:
    """The folders to walk, and what tells a file's role from its path below them."""
    images, labels = store.child("leftImg8bit"), store.child("gtFine")
    if images.is_folder() or labels.is_folder():
        if images.is_folder():
            yield images, _left_image
        if labels.is_folder():
            yield labels, lambda path: _ground_truth(path, suffixes)
        return
    annotations = [store.child(name) for name in _LABEL_FOLDERS]
    there = [folder for folder in annotations if folder.is_folder()]
    if store.child("images").is_folder() and there:
        yield store.child("images"), lambda path: _image_file("image", path)
        yield there[0], lambda path: _image_file("label", path)
    elif store.is_folder():
        yield store, _annotated
    else:
        raise InputError(f"there is no folder {shown(store.uri)}: check the spelling")


def _files(folder: Store) -> Iterator[tuple[str, ObjectInfo]]:
    """Paths below the folder, and what is listed of them; hidden files and folders are left out."""
    base = len(folder.uri.rstrip("/")) + 1
    for info in folder.walk():
        path = info.uri[base:]
        if not path.startswith(".") and "/." not in path:
            yield path, info


def _left_image(path: str) -> Role:
    if suffix_of(path) in IMAGE_SUFFIXES and (tail := _IMAGE_TAIL.search(path)):
        return "image", path[: tail.start()]
    return None


def _ground_truth(path: str, suffixes: tuple[str, ...]) -> Role:
    if path.endswith(POLYGONS_SUFFIX):
        return "polygons", path.removesuffix(POLYGONS_SUFFIX)
    return next((("label", path.removesuffix(s)) for s in suffixes if path.endswith(s)), None)


def _image_file(kind: str, path: str) -> Role:
    return (kind, path.rpartition(".")[0]) if suffix_of(path) in IMAGE_SUFFIXES else None


def _annotated(path: str) -> Role:
    split, _, name = path.partition("/")
    if not name or suffix_of(path) not in IMAGE_SUFFIXES:
        return None
    kind = "label" if split.endswith("annot") else "image"
    return kind, f"{split.removesuffix('annot')}/{name.rpartition('.')[0]}"


def _ending(path: str) -> str:
    """What a name ends in, without the frame's part: `_gtFine_labelids.png`, `.txt`."""
    name = path.rpartition("/")[2]
    at = name.find("_gtFine")
    return name[at:] if at >= 0 else suffix_of(name) or "(no suffix)"
