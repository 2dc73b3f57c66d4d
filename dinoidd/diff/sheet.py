"""A contact sheet: image, A's mask, B's mask, and where they differ; the most different images first."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image, ImageOps

from dinoidd.classes import ClassTable
from dinoidd.diff.comparison import Comparison
from dinoidd.diff.image import ImageDiff
from dinoidd.errors import ImageError, StorageError
from dinoidd.output.draw import SEAM, Cell, Layout, Share, draw_report
from dinoidd.output.mask import count_pixels, decode_mask, open_mask
from dinoidd.output.original import read_original
from dinoidd.output.reader import RunReader
from dinoidd.output.show import Grid
from dinoidd.output.tails import tails
from dinoidd.storage import ObjectReader

_THREADS = 8
_PICTURES = 4  # an image
_WIDTH = 2098  # of the page, less its margins: the legend's six columns hold the longest names
_GAP = 24
_ASPECTS = (0.4, 1.5)  # of a picture, height over width
_CHANGED = (255, 0, 110)  # a colour that no built-in class table has
_PALE = 0.75  # how far the image steps back behind it


def draw_sheet(a: RunReader, b: RunReader, comparison: Comparison, grid: Grid) -> Image.Image:
    """The page, as an RGB image; `grid` counts images, each of which is four pictures.

    An original that cannot be read is a cell with the reason.
    """
    images = comparison.most_different()[: grid.cells]
    columns = min(grid.columns, len(images))
    box = _box(columns, images)
    loader = _Loader(ObjectReader(a.options), a.table, box)
    with ThreadPoolExecutor(_THREADS) as pool:
        fours = pool.map(loader.cells, images, tails([image.uri for image in images]))
        cells = [cell for four in fours for cell in four]
    return draw_report(
        title=f"{a.name} and {b.name}" if a.name != b.name else "Two runs",
        subtitle=_subtitle(a, b, comparison, len(images)),
        cells=cells,
        legend=_legend(images, a.table),
        layout=Layout(columns=_PICTURES * columns, half=((box[0] - SEAM) // 2, box[1])),
    )


def _box(columns: int, images: Sequence[ImageDiff]) -> tuple[int, int]:
    """Width and height of one picture: as wide as fits, as high as the middle image needs."""
    pictures = _PICTURES * columns
    width = max(100, (_WIDTH - _GAP * (pictures - 1)) // pictures) // 2 * 2
    sizes = [open_mask(image.masks[0]).size for image in images]
    lowest, highest = _ASPECTS
    aspect = min(highest, max(lowest, median(height / width for width, height in sizes)))
    return width, round(width * aspect)


@dataclass(frozen=True)
class _Loader:
    reader: ObjectReader
    table: ClassTable
    box: tuple[int, int]

    def cells(self, image: ImageDiff, caption: str) -> list[Cell]:
        """The four pictures of one image."""
        masks = [open_mask(png) for png in image.masks]
        original = self._original(image.uri, masks[0].size)
        colors = [self._fitted(mask.convert("RGB"), Image.Resampling.NEAREST) for mask in masks]
        differs = f"{100 * (1 - image.equal_share):.2f} %"
        return [
            Cell(left=original, right=None, caption=caption),
            Cell(left=colors[0], right=None, caption="A"),
            Cell(left=colors[1], right=None, caption="B"),
            Cell(left=self._changed(image, original), right=None, caption="differ", detail=differs),
        ]

    def _original(self, uri: str, size: tuple[int, int]) -> Image.Image | str:
        try:
            now, image = read_original(self.reader, uri, self.box)
        except (StorageError, ImageError) as error:
            return f"{error.kind}: {error}"
        if now != size:
            return f"changed: it had {size[0]}x{size[1]} pixels, and has {now[0]}x{now[1]} now"
        return image

    def _changed(self, image: ImageDiff, original: Image.Image | str) -> Image.Image:
        """The changed pixels over the pale image; thin lines stay visible when it is made small."""
        a_HW, b_HW = (decode_mask(png) for png in image.masks)
        full = Image.fromarray((a_HW != b_HW).astype(np.uint8) * 255)
        changed = self._fitted(full, Image.Resampling.BOX).point(lambda v: min(255, 3 * v))
        if isinstance(original, str):
            ground = Image.new("RGB", changed.size, "white")
        else:
            grey = original.convert("L").convert("RGB")
            ground = Image.blend(grey, Image.new("RGB", grey.size, "white"), _PALE)
        ground.paste(_CHANGED, (0, 0), changed)
        return ground

    def _fitted(self, image: Image.Image, how: Image.Resampling) -> Image.Image:
        return ImageOps.contain(image, self.box, how)


def _subtitle(a: RunReader, b: RunReader, comparison: Comparison, shown: int) -> str:
    return (
        f"{comparison.images:,} images compared, {100 * comparison.equal_share:.2f} % of their pixels "
        f"equal · the {shown:,} most different · A: {a.uri} · B: {b.uri}"
    )


def _legend(images: Sequence[ImageDiff], table: ClassTable) -> list[Share]:
    """The classes of the masks shown, A's and B's together, the largest first."""
    pngs = [png for image in images for png in image.masks]
    counts = np.sum([count_pixels(decode_mask(png), len(table)) for png in pngs], axis=0)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    infos = [(table.classes[i], float(counts[i] / counts.sum())) for i in order]
    return [Share(name=info.name, color=info.color, share=share) for info, share in infos]
