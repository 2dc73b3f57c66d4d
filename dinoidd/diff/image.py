"""Two masks of one image, compared."""

from dataclasses import dataclass

import numpy as np

from dinoidd.errors import ImageError
from dinoidd.metrics import confusion_matrix
from dinoidd.output.mask import count_pixels, decode_mask


@dataclass(frozen=True, kw_only=True)
class ImageDiff:
    """How far two masks agree; `matrix` is None where they cannot be compared, and `problem` says why."""

    uri: str
    matrix: np.ndarray | None  # int64 [K + 1, K + 1], rows A, columns B, as of `confusion_matrix`
    masks: tuple[bytes, bytes] = (b"", b"")  # PNGs of A and B
    problem: str | None = None  # other_size | broken_mask
    detail: str = ""

    @property
    def pixels(self) -> int:
        return 0 if self.matrix is None else int(self.matrix.sum())

    @property
    def equal(self) -> int:
        """Pixels with the same class in both."""
        return 0 if self.matrix is None else int(np.trace(self.matrix))

    @property
    def equal_share(self) -> float:
        """0..1."""
        return self.equal / self.pixels


def diff_masks(uri: str, a: bytes | None, b: bytes | None, classes: int) -> ImageDiff:
    """Compare two PNGs; masks of other sizes and broken ones are a problem, not an error."""
    try:
        a_HW = decode_mask(a or b"")
        if a == b:  # the same bytes need no second decoding
            matrix = np.diag([*count_pixels(a_HW, classes), 0])
            return ImageDiff(uri=uri, matrix=matrix, masks=(a or b"", b or b""))
        b_HW = decode_mask(b or b"")
    except ImageError as error:
        return ImageDiff(uri=uri, matrix=None, problem="broken_mask", detail=str(error))
    if a_HW.shape != b_HW.shape:
        (a_height, a_width), (b_height, b_width) = a_HW.shape, b_HW.shape
        detail = f"{a_width}x{a_height} in A, {b_width}x{b_height} in B"
        return ImageDiff(uri=uri, matrix=None, problem="other_size", detail=detail)
    matrix = _confusion(a_HW, b_HW, classes)
    return ImageDiff(uri=uri, matrix=matrix, masks=(a or b"", b or b""))


def _confusion(a_HW: np.ndarray, b_HW: np.ndarray, classes: int) -> np.ndarray:
    """`confusion_matrix`, several times as fast where few pixels differ: only these are paired."""
    differ_HW = a_HW != b_HW
    moved = confusion_matrix(a_HW[differ_HW], b_HW[differ_HW], classes)
    equal = np.array([*count_pixels(a_HW, classes), 0]) - moved.sum(axis=1)
    return moved + np.diag(equal)
