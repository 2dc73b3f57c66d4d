"""Some frames of a data set beside their labels, as one picture."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable, RawValues
from dinoidd.data.frames import Frame
from dinoidd.data.image import decode_image
from dinoidd.data.inspect import Inspection, encodings_of
from dinoidd.data.label_image import read_label
from dinoidd.errors import DinoiddError
from dinoidd.output.draw import Cell, Layout, Share, draw_report
from dinoidd.storage import DEFAULT_OPTIONS, ObjectReader, StorageOptions

COLUMNS, ROWS = 3, 4
_MAX_PIXELS = 1 << 28
_OPACITY = 0.65  # of the labels over the image


def draw_contact_sheet(
    found: Inspection, options: StorageOptions = DEFAULT_OPTIONS
) -> Image.Image | None:
    """Frames from all splits, evenly picked; None where no frame has both image and label."""
    both = [frame for frame in found.files.frames.values() if frame.image and frame.label]
    if not both:
        return None
    count = min(len(both), COLUMNS * ROWS)
    picked = [both[i] for i in np.linspace(0, len(both) - 1, count).round().astype(int)]
    size = found.total.label_sizes.most_common(1)
    width, height = map(int, size[0][0].split("x")) if size else (16, 9)
    layout = Layout.of(min(COLUMNS, count), height / width)
    loader = _Loader(found.table, encodings_of(found.table)[found.encoding], options, layout.half)
    cells = [loader.cell(frame) for frame in picked]
    title = f"{count} of {len(both):,} labelled frames"
    subtitle = f"{found.root}, {found.read_as}; void is left clear"
    return draw_report(title, subtitle, cells, loader.legend(), layout)


class _Loader:
    """Makes cells, and counts the classes that they show."""

    def __init__(
        self, table: ClassTable, raw: RawValues, options: StorageOptions, half: tuple[int, int]
    ) -> None:
        self.table, self.half = table, half
        # A sheet shows what is odd, it does not stop at it: unknown values are void.
        self.raw = RawValues(
            values=raw.values,
            colors=raw.colors,
            unmapped="ignore",
            ignore_index=raw.ignore_index,
        )
        self.reader = ObjectReader(options)
        self.pixels: Counter[int] = Counter()

    def cell(self, frame: Frame) -> Cell:
        """Image and overlay, or what went wrong."""
        image = self._image(frame)
        try:
            right: Image.Image | str = self._overlay(frame, image)
        except DinoiddError as error:
            right = str(error)
        left = image if isinstance(image, str) else self._fitted(image)
        return Cell(left=left, right=right, caption=frame.key)

    def _image(self, frame: Frame) -> Image.Image | str:
        assert frame.image is not None
        try:
            decoded = decode_image(self.reader.read(frame.image), max_pixels=_MAX_PIXELS)
        except DinoiddError as error:
            return str(error)
        return decoded.image

    def _overlay(self, frame: Frame, image: Image.Image | str) -> Image.Image:
        assert frame.label is not None
        ids_HW = self.raw.decode(read_label(self.reader.read(frame.label), self.table))
        counts = np.bincount(ids_HW.ravel(), minlength=256)
        self.pixels.update({int(c): int(counts[c]) for c in np.flatnonzero(counts)})
        mask = Image.fromarray(ids_HW)
        mask.putpalette(self.table.palette)
        colors = self._fitted(mask).convert("RGB")
        if isinstance(image, str):
            return colors
        below = image.resize(colors.size)
        known = self._fitted(Image.fromarray(np.uint8(255) * (ids_HW < len(self.table))))
        return Image.composite(Image.blend(below, colors, _OPACITY), below, known)

    def _fitted(self, image: Image.Image) -> Image.Image:
        scale = min(self.half[0] / image.width, self.half[1] / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        photo = image.mode == "RGB"  # what else there is holds class ids
        kind = Image.Resampling.LANCZOS if photo else Image.Resampling.NEAREST
        return image.resize(size, kind)

    def legend(self) -> Sequence[Share]:
        """Shares of the classes shown, the largest first; void is what is left of the bar."""
        total = max(1, sum(self.pixels.values()))
        return [
            Share(
                name=self.table.names[class_id],
                color=self.table.classes[class_id].color,
                share=pixels / total,
            )
            for class_id, pixels in self.pixels.most_common()
            if class_id < len(self.table)
        ]
