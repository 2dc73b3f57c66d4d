"""Images in, classes out: normalise, forward, and resize back, all on the model's device.

Shapes: B images, K classes, h x w the size at which scores are known, H x W an original size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dinoidd.inference.compilation import compile_parts
from dinoidd.inference.device_errors import is_short_of_memory
from dinoidd.models import Segmenter
from dinoidd.models.argmax import resized_argmax
from dinoidd.models.exact import exact_float32
from dinoidd.models.fusion import fuse
from dinoidd.models.linear import PatchOutput
from dinoidd.models.packed import pack_linears
from dinoidd.models.pixels import PixelNorm
from dinoidd.models.query_decoder import QueryOutput
from dinoidd.models.scores import image_scores
from dinoidd.models.semantic import Certainty, certainty

Size = tuple[int, int]  # rows, columns
Frames = Sequence[np.ndarray]  # of one image: uint8 [h, w, 3] each, see `Framing`
Images = np.ndarray | Sequence[Frames]  # squares [B, H, W, 3], or for windows each image's frames


@dataclass(frozen=True)
class Prediction:
    """One image's classes [H, W] uint8 at its original size, and how sure the model was.

    NaN in `certainty` means that the model's output was not a number; the classes are worthless then.
    """

    classes: np.ndarray
    certainty: Certainty


@dataclass(frozen=True)
class Scored:
    """One image's class scores [K, h, w] float32 and the three numbers of its `Certainty`, [3]."""

    scores_Khw: Tensor
    certainty: Tensor


class Scorer(Protocol):
    """What knows images' class scores: `Predictor`, or `WindowPredictor`."""

    @property
    def device(self) -> torch.device: ...

    def scored(self, images: Images, sizes: Sequence[Size]) -> Iterator[Scored]:
        """Each image's scores, one after another.

        Args:
            images: as `Framing.batch` makes them.
            sizes: each image's original rows and columns.
        """
        ...

    def predict(self, images: Images, sizes: Sequence[Size]) -> list[Prediction]:
        """Each image's classes at its original size."""
        ...


class Predictor:
    """Whole-image inference: the image comes resized to the model's square, the answer goes back to
    the original size by bilinear resizing of the class scores."""

    def __init__(
        self,
        model: Segmenter,
        device: str | torch.device = "cpu",
        *,
        compiled_batch: int | None = None,
    ) -> None:
        """`compiled_batch` is the size of batches that the model is compiled for; None: it is not. The
        model is rewritten for inference (see `fuse`), and can neither be trained nor saved any more."""
        self.device = torch.device(device)
        self.dtype = model.backbone.cls_token.dtype
        self.model = fuse(model.to(self.device).eval())
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled_batch is not None:
            compile_parts(self.model)
        elif self.device.type == "cpu":
            pack_linears(self.model)
        self._compiled_batch = compiled_batch
        exact_float32(self.dtype)
        self._normalise = PixelNorm(model.config, self.device)

    def predict(self, images: Images, sizes: Sequence[Size]) -> list[Prediction]:
        """Segment a batch.

        Args:
            images: uint8 [B, H, W, 3], RGB; H and W are multiples of 32.
            sizes: each image's original rows and columns.
        """
        return to_predictions(self.scored(images, sizes), sizes)

    @torch.no_grad()
    def scored(self, images: Images, sizes: Sequence[Size]) -> Iterator[Scored]:
        """See `Scorer`."""
        assert isinstance(images, np.ndarray), "frames are for windows"
        output = self.forward(self.normalise(images))
        for i in range(len(images)):
            scores_Khw = image_scores(output, i, images.shape[1:3])
            yield Scored(scores_Khw, certainty(scores_Khw))

    def forward(self, images_B3HW: Tensor) -> QueryOutput | PatchOutput:
        """The network's output for normalised images.

        For a compiled model a smaller batch is filled up with its last image, since each size of batch
        would be compiled anew; the output has these images as well. Where memory is too short for what
        was added, less is.

        Raises:
            RuntimeError: as of `is_short_of_memory`, the images themselves are too many.
        """
        if self._compiled_batch is None:
            return self.model(images_B3HW)[-1]
        while True:
            try:
                return self.model(self._filled(images_B3HW, self._compiled_batch))[-1]
            except Exception as error:
                if not is_short_of_memory(error):
                    raise
                if self._compiled_batch <= len(images_B3HW):
                    self._compiled_batch = max(
                        1, len(images_B3HW) // 2
                    )  # what the caller tries next
                    raise
            # Only now: within a handler, the error's traceback holds the memory of the failed forward.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._compiled_batch = max(len(images_B3HW), self._compiled_batch // 2)

    def _filled(self, images_B3HW: Tensor, size: int) -> Tensor:
        """Up to that many images, in the one layout that is compiled for."""
        if (missing := size - len(images_B3HW)) > 0:
            filler = images_B3HW[-1:].expand(missing, -1, -1, -1)
            images_B3HW = torch.cat([images_B3HW, filler])
        return images_B3HW.contiguous(memory_format=torch.channels_last)

    def normalise(self, images_BHW3: np.ndarray) -> Tensor:
        """uint8 images as the network wants them: [B, 3, H, W] in the model's dtype."""
        return self.normalised(self.upload(images_BHW3))

    def upload(self, pixels: np.ndarray) -> Tensor:
        """uint8 pixels on the model's device."""
        # torch warns of read-only arrays, which is what Ray hands out; the tensor is never written to
        tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def normalised(self, pixels_BHW3: Tensor) -> Tensor:
        """uint8 pixels on the device as [B, 3, H, W] in the model's dtype."""
        return self._normalise(pixels_BHW3).to(self.dtype)


@torch.no_grad()
def to_predictions(scored: Iterator[Scored], sizes: Sequence[Size]) -> list[Prediction]:
    """Classes at the original sizes, on the host; a GPU is waited for once all images are through."""
    results = [
        (resized_argmax(one.scores_Khw, size), one.certainty)
        for one, size in zip(scored, sizes, strict=True)
    ]
    return [_to_host(classes, means) for classes, means in results]


def _to_host(classes: Tensor, means: Tensor) -> Prediction:
    return Prediction(classes=classes.cpu().numpy(), certainty=Certainty(*means.tolist()))
