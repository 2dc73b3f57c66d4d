"""One sample's files as arrays at the model's square."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dinoidd.classes import ClassTable, RawValues, encodings_of
from dinoidd.classes.raw import plain_values
from dinoidd.data.image import DecodedImage, decode_image
from dinoidd.data.label_image import MAX_LABEL_PIXELS, read_label
from dinoidd.data.polygons import PolygonError, decode_annotation, draw_labels
from dinoidd.errors import ClassTableError, DinoiddError, ImageError, StorageError
from dinoidd.storage import DEFAULT_OPTIONS, ObjectReader, StorageOptions, shown
from dinoidd.training.augmentation import MEAN_COLOR, Augmentation, ColorChange, Geometry
from dinoidd.training.samples import Sample, polygon_encoding

VOID = 255  # in labels, whatever the class table's own ignore_index is
_LOST = ("missing", "too_large")  # of one file; a store's other failures are no file's fault


class SampleError(DinoiddError):
    """One image or its label cannot be used. The message names the file."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image with its label, S the side of the model's square."""

    key: str
    view: int
    image_SS3: np.ndarray  # uint8, RGB
    label_SS: np.ndarray  # uint8, class ids; 255 is void


@dataclass(frozen=True, kw_only=True)
class ExampleReader:
    """Reads samples. Picklable; it holds no connections."""

    table: ClassTable
    encoding: str  # of the label images, one of `encodings_of(table)`
    image_size: int  # S
    augmentation: Augmentation | None = None  # None: the image as inference resizes it
    options: StorageOptions = DEFAULT_OPTIONS

    def read(self, sample: Sample, view: int = 0) -> Example:
        """The sample at the square, its image resized bilinearly, its label by nearest neighbour.

        Args:
            view: which augmented pass; without an augmentation all are the same.

        Raises:
            SampleError: the image or the label is broken, they differ in size, or the label has raw
                values that the class table does not name.
            StorageError: the store does not answer; it may another time.
        """
        image, label = self._image(sample), self._label(sample)
        if label.shape[:2] != image.size:
            raise SampleError(
                f"label {shown(sample.label)} is {_size(label.shape[:2])}, and its image "
                f"{shown(sample.image)} is {_size(image.size)}: draw or export one of them anew"
            )
        geometry, colors = self._drawn(sample.key, view)
        pixels = colors.apply(geometry.cut(image.image, Image.Resampling.BILINEAR))
        raw = geometry.cut(Image.fromarray(label), Image.Resampling.NEAREST)
        return Example(
            key=sample.key,
            view=view,
            image_SS3=geometry.place(np.array(pixels), MEAN_COLOR),
            label_SS=geometry.place(self._class_ids(sample, np.asarray(raw)), VOID),
        )

    def label_values(self, sample: Sample) -> np.ndarray:
        """Class ids at full size, uint8 [H, W], 255 void. Raises SampleError, StorageError."""
        return self._class_ids(sample, self._label(sample))

    def _drawn(self, key: str, view: int) -> tuple[Geometry, ColorChange]:
        if self.augmentation is None:
            return Geometry.whole(self.image_size), ColorChange()
        return self.augmentation.draw(key, view, self.image_size)

    def _image(self, sample: Sample) -> DecodedImage:
        data = self._bytes(sample.image)
        try:
            return decode_image(data, max_pixels=MAX_LABEL_PIXELS)
        except ImageError as error:
            raise SampleError(f"image {shown(sample.image)}: {error}") from error

    def _label(self, sample: Sample) -> np.ndarray:
        """Raw values of a label image, or of polygons drawn; uint8 [H, W] or [H, W, 3]."""
        data = self._bytes(sample.label)
        try:
            if not sample.drawn:
                return read_label(data, self._raw_values(sample))
            encoding = polygon_encoding(self.table)
            assert encoding is not None
            return np.asarray(draw_labels(decode_annotation(data), encoding))
        except (ImageError, PolygonError) as error:
            raise SampleError(f"label {shown(sample.label)}: {error}") from error

    def _class_ids(self, sample: Sample, raw: np.ndarray) -> np.ndarray:
        values = self._raw_values(sample)
        try:
            ids = values.decode(raw)
        except ClassTableError as error:
            raise SampleError(f"label {shown(sample.label)}: {error}") from error
        if self.table.ignore_index != VOID:
            ids[ids == self.table.ignore_index] = VOID
        return ids

    def _raw_values(self, sample: Sample) -> RawValues:
        if sample.drawn:
            return plain_values(len(self.table))
        return encodings_of(self.table)[self.encoding]

    def _bytes(self, uri: str) -> bytes:
        try:
            return ObjectReader(self.options).read(uri)
        except StorageError as error:
            if error.kind in _LOST:
                raise SampleError(str(error)) from error
            raise


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
