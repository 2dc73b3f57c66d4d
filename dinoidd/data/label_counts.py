"""What the files of frames hold: one frame counted, and the sums, which add up across workers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from dinoidd.classes import ClassTable, RawValues
from dinoidd.data.frames import Frame
from dinoidd.data.image import DAMAGE, upright_size
from dinoidd.data.label_image import COLOR, count_values, read_label
from dinoidd.data.polygons import decode_annotation
from dinoidd.errors import DinoiddError, ImageError
from dinoidd.storage import DEFAULT_OPTIONS, ObjectReader, StorageOptions, Store, shown

EXAMPLES = 5  # names that are kept of each kind of finding
_COLORS_KEPT = 1024  # of one image; a label image with more is a photograph or was smoothed
VOID = 255
_MUCH_VOID = 0.05  # of an image's pixels


@dataclass(kw_only=True)
class Findings:
    """How often something was found, and the first few places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Once more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def merge(self, other: "Findings") -> None:
        """And those of another part of the data set."""
        self.count += other.count
        self.examples = (self.examples + other.examples)[:EXAMPLES]


@dataclass(kw_only=True)
class Classes:
    """Pixels and images of each class under one encoding; `unmapped`: values that it does not name."""

    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    unmapped: Counter[int] = field(default_factory=Counter)  # raw value: pixels

    def merge(self, other: "Classes") -> None:
        """Add the counts of another part of the data set."""
        self.pixels.update(other.pixels)
        self.images.update(other.images)
        self.unmapped.update(other.unmapped)


@dataclass(kw_only=True)
class Tally:
    """Counts over frames of one split."""

    frames: int = 0  # with an image
    labels: int = 0  # label images
    polygons: int = 0  # polygon files that can be drawn
    labels_read: int = 0
    pixels: int = 0  # of the labels read
    without_label: Findings = field(default_factory=Findings)
    without_image: Findings = field(default_factory=Findings)
    only_polygons: Findings = field(default_factory=Findings)
    broken: Findings = field(default_factory=Findings)
    other_size: Findings = field(default_factory=Findings)  # label and image differ
    no_zero: Findings = field(default_factory=Findings)  # labels without 0 and with much 255
    sizes: Counter[str] = field(default_factory=Counter)  # of images
    label_sizes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)  # `values` or `colors`
    colored: Findings = field(default_factory=Findings)  # labels in colour
    raw_pixels: Counter[int] = field(default_factory=Counter)
    raw_images: Counter[int] = field(default_factory=Counter)
    classes: dict[str, Classes] = field(default_factory=dict)  # by encoding

    def add_values(self, key: str, counts: Mapping[int, int], kind: str) -> None:
        """Note the raw values of a frame's label image; `kind`: values or colors."""
        self.labels_read += 1
        self.kinds[kind] += 1
        if kind == "colors":
            self.colored.add(key)
        if len(counts) > _COLORS_KEPT:
            return
        self.raw_pixels.update(counts)
        self.raw_images.update(counts.keys())
        much_void = counts.get(VOID, 0) >= _MUCH_VOID * sum(counts.values())
        if kind == "values" and 0 not in counts and much_void:
            self.no_zero.add(key)

    def merge(self, other: "Tally") -> "Tally":
        """Add another part's counts to these."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, int):
                setattr(self, name, mine + value)
            elif isinstance(value, Findings):
                mine.merge(value)
            elif isinstance(value, Counter):
                mine.update(value)
            else:
                for encoding, classes in value.items():
                    mine.setdefault(encoding, Classes()).merge(classes)
        return self


@dataclass(frozen=True, kw_only=True)
class FrameCounter:
    """Counts frames. Picklable."""

    table: ClassTable
    encodings: Mapping[str, RawValues]
    options: StorageOptions = DEFAULT_OPTIONS

    def count(self, frames: list[Frame]) -> Tally:
        """The counts of some frames of one split; a file that cannot be read is among them."""
        tally = Tally()
        for frame in frames:
            self._count_presence(frame, tally, self._are_drawable(frame, tally))
            size = self._count_image(frame, tally) if frame.image else None
            if frame.label:
                self._count_label(frame, tally, size)
        return tally

    def _are_drawable(self, frame: Frame, tally: Tally) -> bool:
        """Whether there are polygons, and `dinoidd data labels` could draw them."""
        if frame.polygons is None:
            return False
        try:
            decode_annotation(ObjectReader(self.options).read(frame.polygons))
        except DinoiddError as error:
            tally.broken.add(_told(frame.polygons, error))
            return False
        return True

    def _count_presence(self, frame: Frame, tally: Tally, polygons: bool) -> None:
        tally.frames += frame.image is not None
        tally.labels += frame.label is not None
        tally.polygons += polygons
        if frame.image is None:
            tally.without_image.add(frame.key)
        elif frame.label is None and not polygons:
            tally.without_label.add(frame.key)
        if frame.label is None and polygons:
            tally.only_polygons.add(frame.key)

    def _count_image(self, frame: Frame, tally: Tally) -> tuple[int, int] | None:
        """The size, from the file's first bytes."""
        assert frame.image is not None
        folder, _, name = frame.image.rpartition("/")
        try:
            with Store.open(folder, self.options).open_read(name) as file:
                width, height = _size_of(file)
        except DinoiddError as error:
            tally.broken.add(_told(frame.image, error))
            return None
        tally.sizes[f"{width}x{height}"] += 1
        return width, height

    def _count_label(self, frame: Frame, tally: Tally, size: tuple[int, int] | None) -> None:
        assert frame.label is not None
        try:
            raw = read_label(ObjectReader(self.options).read(frame.label), self.table)
        except DinoiddError as error:
            tally.broken.add(_told(frame.label, error))
            return
        height, width = raw.shape[:2]
        tally.label_sizes[f"{width}x{height}"] += 1
        if size is not None and size != (width, height):
            tally.other_size.add(f"{frame.key}: image {size[0]}x{size[1]}, label {width}x{height}")
        tally.pixels += height * width
        counts = count_values(raw)
        self._add_values(frame, tally, counts, "values" if raw.ndim == 2 else "colors")

    def _add_values(self, frame: Frame, tally: Tally, counts: dict[int, int], kind: str) -> None:
        tally.add_values(frame.key, counts, kind)
        if len(counts) > _COLORS_KEPT:
            tally.broken.add(f"{frame.label}: {len(counts):,} colours, so it is no label image")
            return
        for name, raw in self.encodings.items():
            tally.classes.setdefault(name, Classes()).merge(_classes(raw, counts, kind))


def _size_of(file: BinaryIO) -> tuple[int, int]:
    """Width and height as labels are drawn for: upright. Raises ImageError."""
    try:
        with Image.open(file) as image:
            return upright_size(image)
    except UnidentifiedImageError as error:  # whose own text has the stream's repr
        what = "cannot be read as an image: bytes of no known format"
        raise ImageError("not_an_image", what) from error
    except DAMAGE as error:
        raise ImageError("corrupt", f"cannot be read as an image: {error}") from error


def _told(uri: str, error: DinoiddError) -> str:
    """What is wrong with a file; a store's errors name it themselves."""
    return str(error) if shown(uri) in str(error) else f"{uri}: {error}"


def _classes(raw: RawValues, counts: dict[int, int], kind: str) -> Classes:
    """An image's raw values as classes."""
    result = Classes()
    for value, pixels in counts.items():
        class_id = raw.values.get(value) if kind == "values" else raw.colors.get(color_of(value))
        if class_id is None and raw.unmapped == "ignore":
            class_id = raw.ignore_index
        if class_id is None:
            result.unmapped[value] += pixels
        else:
            result.pixels[class_id] += pixels
    result.images.update(result.pixels.keys())
    return result


def color_of(value: int) -> tuple[int, int, int]:
    """The red, green and blue of a counted colour."""
    return value >> 16 & 255, value >> 8 & 255, value & 255


def raw_name(value: int) -> str:
    """A counted raw value as text: `7`, or a colour as `#804080`."""
    return f"#{value & ~COLOR:06x}" if value & COLOR else str(value)


def to_plain(tally: Tally) -> dict[str, Any]:
    """Without the classes; for JSON."""
    plain: dict[str, Any] = {}
    for name, value in vars(tally).items():
        if isinstance(value, Findings):
            plain[name] = {"count": value.count, "examples": value.examples}
        elif isinstance(value, Counter):
            named = {k: raw_name(k) if isinstance(k, int) else k for k in sorted(value)}
            plain[name] = {text: value[key] for key, text in named.items()}
        elif isinstance(value, int):
            plain[name] = value
    return plain
