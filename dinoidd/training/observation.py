"""What the classifier and the loss need to know of one image: all that a cache has to hold.

Shapes: L prediction layers (1 without deep supervision), Q queries, C decoder width, G classes present
in the image, P points, h x w the masks' size, S the side of the square.
"""

from dataclasses import dataclass, fields

import numpy as np

from dinoidd.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One image and view, seen by the frozen network. Arrays that a loss does not need are None."""

    key: str
    view: int
    # What the classifier reads: float32, or bfloat16's bits as uint16.
    queries_LQC: np.ndarray
    # Of the set loss. Costs of every query with every class's mask, unweighted, float32.
    classes_G: np.ndarray | None = None  # uint8, ascending
    match_bce_LQG: np.ndarray | None = None  # at the matching points
    match_dice_LQG: np.ndarray | None = None
    loss_bce_LQG: np.ndarray | None = None  # at the query's own points of the loss
    loss_dice_LQG: np.ndarray | None = None
    # Of the pixel loss: how much each point is inside of each mask, 0..1, in float16 beside bfloat16
    # queries (an error of at most 2^-12, 0.00025), in float32 beside float32 ones.
    inside_LQP: np.ndarray | None = None
    labels_P: np.ndarray | None = None  # uint8, 255 is void
    # Of validation. Mask logits of the last layer: float16 beside bfloat16 queries (relative error
    # 2^-11, 0.0005: the sigmoid moves by 0.00011 at most), else float32.
    mask_logits_Qhw: np.ndarray | None = None
    label_SS: np.ndarray | None = None  # uint8, 255 is void
    image_SS3: np.ndarray | None = None  # uint8; only pictures need it, a cache may leave it out

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are there, by name; Observation(key=, view=, **arrays) is the way back."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NAMES}
        return {name: array for name, array in named.items() if array is not None}

    def array(self, name: str) -> np.ndarray:
        """An array that has to be there.

        Raises:
            TrainingError: it is not, as the observation was made for something else.
        """
        array = getattr(self, name)
        if array is None:
            has = ", ".join(self.arrays)
            raise TrainingError(
                f"the cache's observation of '{self.key}' has no {name} (it has {has}): it was made for "
                "another loss. Remove that cache, or name another folder with cache"
            )
        return array


_NAMES = ("key", "view")
