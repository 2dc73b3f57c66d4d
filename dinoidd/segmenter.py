"""The Python API: load a model once, then segment images, one by one or in lists."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch

from dinoidd.ahead import batches
from dinoidd.classes import ClassTable
from dinoidd.config import SegmentConfig, Windows
from dinoidd.errors import ConfigError, DinoiddError, ImageError
from dinoidd.inference.device import usable_device
from dinoidd.inference.predictor import Frames, Images, Prediction, Size
from dinoidd.inference.scorer import make_scorer
from dinoidd.inference.source import ModelSource
from dinoidd.inference.windows import Framing
from dinoidd.prediction.inputs import ImageLike, InputImage, read_image
from dinoidd.prediction.probabilities import predict_with_probabilities
from dinoidd.prediction.segmentation import Segmentation
from dinoidd.storage import ObjectReader, StorageOptions, shown

ImageList = (
    list[Any] | tuple[Any, ...]
)  # of ImageLike; Any, since a list[str] is no list[ImageLike]


class Segmenter:
    """A model that is ready to segment images.

    >>> segmenter = Segmenter.load("model.safetensors")
    >>> result = segmenter.predict("street.jpg")
    >>> result.classes.shape, result.statistics[0].name
    ((1080, 1920), 'road')

    Masks are those that `dinoidd segment` writes for the same image, checkpoint and settings.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        device: str = "auto",
        image_size: int | None = None,
        windows: Windows | None = None,
        batch_size: int = 8,
        max_pixels: int = SegmentConfig.max_pixels,
    ) -> None:
        """Load the model of `source`; `Segmenter.load` and `Segmenter.random` are shorter.

        Args:
            device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1", ...
            image_size: side of the square that the model sees, a multiple of 32; None: its own.
            windows: slide these over the image instead; None: the whole image, as one square.
            batch_size: images a forward, of a list; with windows, windows a forward.
            max_pixels: larger images are refused before they are decoded.

        Raises:
            ConfigError, CheckpointError, StorageError: in one sentence.
        """
        self.device = usable_device(device)
        source = source.settled(self.device)
        description = source.describe()
        self.class_table: ClassTable = description.table
        self.image_size = description.config.image_size if image_size is None else image_size
        if self.image_size < 32 or self.image_size % 32:
            raise ConfigError(f"image size {image_size}: a positive multiple of 32 is needed")
        if image_size is not None and windows is not None:
            raise ConfigError(
                f"image size {image_size} is of whole images: leave it out with windows"
            )
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: at least 1 is needed")
        self.batch_size, self.max_pixels = batch_size, max_pixels
        self._reader = ObjectReader(source.storage)
        self._framing = Framing(image_size=self.image_size, windows=windows)
        self._predictor = make_scorer(source.load(), self.device, windows, batch_size)

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        base: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
        windows: Windows | None = None,
        batch_size: int = 8,
        endpoint_url: str | None = None,
    ) -> "Segmenter":
        """The model of a file of `dinoidd convert` or `train`; a URL is downloaded once a machine.

        Args:
            base: of a file of `train`, the file that it was trained on; None: where that was.
            dtype: "float32", "bfloat16", "float8", "int8" or "auto" (see `pick_dtype`).
            windows: slide these over images; None: whole images, each as one square.
            endpoint_url: an S3 server other than AWS.
        """
        source = ModelSource(
            checkpoint=os.fspath(checkpoint),
            base=None if base is None else os.fspath(base),
            dtype=dtype,
            storage=StorageOptions(endpoint_url=endpoint_url),
        )
        return cls(
            source,
            device=device,
            image_size=image_size,
            windows=windows,
            batch_size=batch_size,
        )

    @classmethod
    def random(
        cls,
        preset: str = "tiny",
        *,
        classes: str = "idd",
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
        batch_size: int = 8,
    ) -> "Segmenter":
        """A preset with random weights, for a trial: its masks mean nothing."""
        source = ModelSource(preset=preset, classes=classes, seed=seed, dtype=dtype)
        return cls(source, device=device, image_size=image_size, batch_size=batch_size)

    @overload
    def predict(self, image: ImageLike, *, probabilities: bool = False) -> Segmentation: ...

    @overload
    def predict(self, image: ImageList, *, probabilities: bool = False) -> list[Segmentation]: ...

    def predict(
        self, image: ImageLike | ImageList, *, probabilities: bool = False
    ) -> Segmentation | list[Segmentation]:
        """Segment an image, or a list of them in batches.

        Args:
            image: path or URL, bytes, a Pillow image, uint8 [H, W, 3] RGB, or a list of these.
            probabilities: keep float32 [K, H, W] at the image's size, which sum to 1 over classes:
                Mask2Former's class scores over their sum. 26 classes at 1080p are 216 MB an image.

        Raises:
            StorageError: an image cannot be read.
            ImageError: it is no image, a damaged one, too large, or the model's output is not a number.
        """
        if isinstance(image, list | tuple):
            return list(self.predict_each(image, probabilities=probabilities))
        return self._results([self._read_named(image, "the image")], probabilities)[0]

    def predict_each(
        self, images: Iterable[ImageLike], *, probabilities: bool = False
    ) -> Iterator[Segmentation]:
        """As `predict` of a list, one after another: a batch is in memory, never all."""
        for batch in batches(enumerate(images), self.batch_size):
            yield from self._results(
                [self._read_named(i, f"image {n} of the list") for n, i in batch], probabilities
            )

    def read(self, image: ImageLike) -> InputImage:
        """Read and decode an image for `segment`; from any thread. Raises as `predict`."""
        return read_image(image, self._reader, self.max_pixels)

    def segment(
        self, images: Sequence[InputImage], *, probabilities: bool = False
    ) -> list[Segmentation | ImageError]:
        """One batch, at most; an image that the model cannot answer for has an error in its place."""
        if not images:
            return []
        results: dict[int, Segmentation | ImageError] = {}
        framed: dict[int, Frames] = {}
        for i, image in enumerate(images):
            try:
                framed[i] = self._framing.frames(image.decoded, self.max_pixels)
            except ImageError as error:
                results[i] = error
        if framed:
            sizes = [images[i].decoded.size for i in framed]
            batch = self._framing.batch(list(framed.values()))
            answers = self._answers(batch, sizes, probabilities)
            for i, answer in zip(framed, answers, strict=True):
                results[i] = _result(self.class_table, images[i], *answer)
        return [results[i] for i in range(len(images))]

    def _answers(
        self, batch: Images, sizes: list[Size], probabilities: bool
    ) -> list[tuple[Prediction, np.ndarray | None]]:
        try:
            if probabilities:
                return [*predict_with_probabilities(self._predictor, batch, sizes)]
            return [(answer, None) for answer in self._predictor.predict(batch, sizes)]
        except torch.OutOfMemoryError as error:
            windows, side = self._framing.windows, self.image_size
            what = f"images of {side} x {side}" if windows is None else "images and their windows"
            raise ConfigError(
                f"{len(batch)} {what} do not fit into the GPU's memory: lower the batch size or the "
                f"{'image size' if windows is None else 'short side'}"
            ) from error

    def _read_named(self, image: ImageLike, unnamed: str) -> InputImage:
        """As `read`; the error's sentence has the file, or `unnamed`, and the kind."""
        try:
            return self.read(image)
        except ImageError as error:
            where = shown(os.fspath(image)) if isinstance(image, str | os.PathLike) else unnamed
            raise ImageError(error.kind, f"{where}: {error.kind}: {error}") from error

    def _results(self, images: list[InputImage], probabilities: bool) -> list[Segmentation]:
        results = []
        for result in self.segment(images, probabilities=probabilities):
            if isinstance(result, DinoiddError):
                raise result
            results.append(result)
        return results


def _result(
    table: ClassTable,
    image: InputImage,
    prediction: Prediction,
    probabilities_KHW: np.ndarray | None = None,
) -> Segmentation | ImageError:
    certainty = prediction.certainty
    if not np.isfinite([certainty.confidence, certainty.entropy, certainty.margin]).all():
        return ImageError(
            "not_finite",
            f"{image.name}: the model's output is not a number: use dtype float32, or check the "
            "checkpoint",
        )
    return Segmentation(
        name=image.name,
        uri=image.uri,
        image=image.decoded.image,
        note=image.decoded.note,
        classes=prediction.classes,
        class_table=table,
        confidence=certainty.confidence,
        entropy=certainty.entropy,
        margin=certainty.margin,
        probabilities=probabilities_KHW,
    )
