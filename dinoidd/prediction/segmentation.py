"""A segmented image: its classes, how sure the model was, and pictures of it."""

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable
from dinoidd.errors import ConfigError, OutputError
from dinoidd.output.mask import encode_mask
from dinoidd.prediction.comparison import ALPHA, colored_mask, draw_comparison, overlay
from dinoidd.prediction.folder import COLORED, COMPARISON, ORIGINAL, RAW, write_folder
from dinoidd.prediction.naming import STATISTICS, SUFFIX, owner_line, stem_of
from dinoidd.prediction.statistics import ClassStatistic, class_statistics, statistics_text

_PNG_LEVEL = (
    1  # a 1080p street in 0.12 s, up to a fifth larger than at zlib's own 6, which takes 0.45 s
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What `Segmenter.predict` returns. A notebook shows it as its `plot()`.

    `confidence`, `entropy` and `margin` are means over the pixels, 0..1: of the highest class
    probability, of the normalised entropy, and of the highest less the second-highest probability.
    """

    name: str  # of the image: the last part of its address, or "image"
    uri: str | None  # where the image is; None: it was given as bytes or pixels
    image: Image.Image  # RGB, upright
    note: str | None  # what was done to decode it, such as "turned by EXIF orientation 6"
    classes: np.ndarray  # uint8 [H, W], class ids at the image's size
    class_table: ClassTable
    confidence: float
    entropy: float
    margin: float
    probabilities: np.ndarray | None = None  # float32 [K, H, W], sums to 1 over classes; on request

    @cached_property
    def statistics(self) -> list[ClassStatistic]:
        """The classes in the image (id, name, pixels, share), the largest first."""
        return class_statistics(self.classes, self.class_table)

    def colored(self) -> Image.Image:
        """The mask as a palette image: pixel values are class ids, the palette has the colours."""
        return colored_mask(self.classes, self.class_table)

    def overlay(self, alpha: float = ALPHA) -> Image.Image:
        """The class colours over the image, RGB; alpha 0 shows the image, 1 the colours alone.

        Raises:
            ConfigError: alpha is not 0..1.
        """
        if not 0 <= alpha <= 1:
            raise ConfigError(f"an overlay's alpha is 0 to 1, not {alpha}")
        return overlay(self.image, self.colored(), alpha)

    def plot(self) -> Image.Image:
        """Image, classes and overlay side by side with a legend, RGB, 2174 pixels wide."""
        return draw_comparison(
            self.name,
            self.summary,
            self.image,
            self.colored(),
            self.statistics,
            self.class_table,
        )

    @property
    def summary(self) -> str:
        """Size and certainty in a line."""
        return (
            f"{self.image.width} x {self.image.height} pixels · confidence {self.confidence:.2f}"
            f" · entropy {self.entropy:.2f} · margin {self.margin:.2f}"
        )

    def save(self, folder: str | os.PathLike[str], *, replace: bool = False) -> Path:
        """Write `NAME_segmentation/` with five files into a folder, and return its path.

        Args:
            folder: a local folder; made where there is none.
            replace: whether an earlier folder of the same name gives way.

        Raises:
            OutputError: it cannot be written, or exists already.
        """
        target = Path(folder) / f"{stem_of(self.name)}{SUFFIX}"
        if not replace and (target.exists() or target.is_symlink()):
            raise OutputError(
                f"{target} is there already: save with replace=True, or into another folder"
            )
        write_folder(target, self.write_files)
        return target

    def write_files(self, folder: Path) -> None:
        """Write the five files into an existing folder; `save` makes sure that all are there."""
        self.image.save(folder / ORIGINAL, compress_level=_PNG_LEVEL)
        np.save(folder / RAW, self.classes)
        (folder / COLORED).write_bytes(encode_mask(self.classes, self.class_table))
        self.plot().save(folder / COMPARISON, compress_level=_PNG_LEVEL)
        head = [owner_line(self.name, self.uri), self.summary, *filter(None, [self.note])]
        table = statistics_text(self.statistics, self.class_table)
        (folder / STATISTICS).write_text("\n".join([*head, "", table]), encoding="utf-8")

    def __repr__(self) -> str:
        largest = ", ".join(f"{s.name} {s.share:.1%}" for s in self.statistics[:3])
        return f"Segmentation({self.name!r}, {self.summary}: {largest}, ...)"

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        png = io.BytesIO()
        self.plot().save(png, "PNG")
        return png.getvalue()
