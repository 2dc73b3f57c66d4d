"""Sliding windows and test-time augmentation, in full batches whatever the images' sizes are.

An image is seen in views: its frames, one a scale, and each mirrored. Windows of a view lie on a canvas,
where their scores are summed up on the model's device; windows of all views and images are taken in
turn, so that a batch is full until the last one.
Shapes: K classes, S the window's side, P that padded to a multiple of 32, h x w a view, H x W an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dinoidd.config import Windows
from dinoidd.inference.device_errors import is_short_of_memory
from dinoidd.inference.predictor import (
    Frames,
    Images,
    Prediction,
    Predictor,
    Scored,
    Size,
    to_predictions,
)
from dinoidd.inference.windows import blend_weights, window_corners
from dinoidd.models import Segmenter
from dinoidd.models.scores import image_scores
from dinoidd.models.semantic import certainty

_MULTIPLE = 32  # of the network's input


class WindowPredictor:
    """See `dinoidd.inference.predictor.Scorer`. One view's scores are at the view's size; those of
    several are at the image's, and made as in DINOv3's evaluation: softmax of each, then the mean."""

    def __init__(self, whole: Predictor, windows: Windows, batch_size: int = 8) -> None:
        """`batch_size` is windows a forward; where memory is short, fewer are tried."""
        self._whole = whole
        self._windows, self._batch_size = windows, batch_size
        self._classes = whole.model.config.classes
        self._weights_SS = blend_weights(windows, self.device)

    @property
    def device(self) -> torch.device:
        return self._whole.device

    @property
    def model(self) -> Segmenter:
        return self._whole.model

    def predict(self, images: Images, sizes: Sequence[Size]) -> list[Prediction]:
        """See `Scorer`."""
        return to_predictions(self.scored(images, sizes), sizes)

    @torch.no_grad()
    def scored(self, images: Images, sizes: Sequence[Size]) -> Iterator[Scored]:
        """See `Scorer`."""
        assert not isinstance(images, np.ndarray), "squares are for whole images"
        tiles = self._tiles(images)
        ways = len(self._windows.scales) * (1 + self._windows.flip)
        waiting = iter([_Views(ways, size) for size in sizes])
        views = next(waiting, None)
        while batch := list(islice(tiles, self._batch_size)):
            self._add(batch)
            for canvas in (tile.canvas for tile in batch if tile.is_last):
                assert views is not None
                if (image := views.add(canvas.finished())) is not None:
                    yield image
                    views = next(waiting, None)

    def _tiles(self, images: Sequence[Frames]) -> Iterator["_Tile"]:
        """The windows of all images, in order. A canvas is made when its first window is taken."""
        for frames in images:
            for frame in frames:
                pixels_hw3 = self._whole.upload(frame)
                for mirrored in (False, True) if self._windows.flip else (False,):
                    view = pixels_hw3.flip(1) if mirrored else pixels_hw3
                    canvas = _Canvas(self._classes, frame.shape[:2], self.device, mirrored)
                    *most, last = window_corners(canvas.size, self._windows)
                    yield from (_Tile(canvas, view, corner) for corner in most)
                    yield _Tile(canvas, view, last, is_last=True)

    def _add(self, tiles: list["_Tile"]) -> None:
        """Segment windows and add their scores to their canvases, by halves where memory is short."""
        if self._forward(tiles):
            return
        # Only now: within a handler, the error's traceback holds the memory of the failed forward.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(tiles) // 2
        self._batch_size = max(1, half)
        self._add(tiles[:half])
        self._add(tiles[half:])

    def _forward(self, tiles: list["_Tile"]) -> bool:
        """False where a batch of several does not fit the memory; nothing is added then."""
        try:
            side = self._windows.size
            padded = -(-side // _MULTIPLE) * _MULTIPLE
            pixels = [tile.pixels(side) for tile in tiles]
            output = self._whole.forward(torch.stack([self._padded(p, padded) for p in pixels]))
        except Exception as error:
            if len(tiles) == 1 or not is_short_of_memory(error):
                raise
            return False
        for i, tile in enumerate(tiles):
            scores_KPP = image_scores(output, i, (padded, padded))
            tile.canvas.add(scores_KPP, self._weights_SS, tile.corner)
        return True

    def _padded(self, pixels_hw3: Tensor, side: int) -> Tensor:
        """Normalised [3, side, side]; what is beyond the image is the mean colour."""
        (image_3hw,) = self._whole.normalised(pixels_hw3[None])
        height, width = image_3hw.shape[1:]
        return F.pad(image_3hw, (0, side - width, 0, side - height))


@dataclass
class _Canvas:
    """Scores of one view, summed up over its windows."""

    classes: int
    size: Size
    device: torch.device
    mirrored: bool
    sums_Khw: Tensor = field(init=False)
    weights_hw: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums_Khw = torch.zeros(self.classes, *self.size, device=self.device)
        self.weights_hw = torch.zeros(self.size, device=self.device)

    def add(self, scores_KPP: Tensor, weights_SS: Tensor, corner: Size) -> None:
        """A window's scores; what lies beyond the view is dropped."""
        rows, columns = (
            slice(start, min(start + len(weights_SS), end))
            for start, end in zip(corner, self.size, strict=True)
        )
        height, width = rows.stop - rows.start, columns.stop - columns.start
        weights = weights_SS[:height, :width]
        self.sums_Khw[:, rows, columns].addcmul_(scores_KPP[:, :height, :width], weights)
        self.weights_hw[rows, columns] += weights

    def finished(self) -> Scored:
        """The weighted mean, the right way round. The sums are used up."""
        scores_Khw = self.sums_Khw.div_(self.weights_hw)
        scores_Khw = scores_Khw.flip(2) if self.mirrored else scores_Khw
        return Scored(scores_Khw, certainty(scores_Khw))


@dataclass(frozen=True)
class _Tile:
    """A window of a view."""

    canvas: _Canvas
    view_hw3: Tensor
    corner: Size
    is_last: bool = False  # of its view

    def pixels(self, side: int) -> Tensor:
        """uint8 [<= side, <= side, 3]."""
        row, column = self.corner
        return self.view_hw3[row : row + side, column : column + side]


class _Views:
    """One image from its views, as they come.

    The certainty is the mean of theirs: softmax of scores that are 0..1 leaves the order of classes,
    and nothing of how sure the model was.
    """

    def __init__(self, count: int, size: Size) -> None:
        self._count, self._size = count, size
        self._seen = 0
        self._sums: Scored | None = None

    def add(self, view: Scored) -> Scored | None:
        """The image's scores with its last view, None before. A single view is taken as it is."""
        if self._count == 1:
            return view
        chances_KHW = resized_scores(view.scores_Khw, self._size).softmax(0)
        if self._sums is None:
            self._sums = Scored(chances_KHW, view.certainty.clone())
        else:
            self._sums.scores_Khw.add_(chances_KHW)
            self._sums.certainty.add_(view.certainty)
        self._seen += 1
        if self._seen < self._count:
            return None
        means = (total.div_(self._count) for total in (self._sums.scores_Khw, self._sums.certainty))
        return Scored(*means)


def resized_scores(scores_Khw: Tensor, size: Size) -> Tensor:
    """Scores resized bilinearly, [K, *size]."""
    return F.interpolate(scores_Khw[None], size=size, mode="bilinear", align_corners=False)[0]
