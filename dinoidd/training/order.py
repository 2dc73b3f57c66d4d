"""Which images make which step: the same for any number of workers and micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dinoidd.errors import InputError
from dinoidd.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Order:
    """How epochs over a split of `images` are cut into steps, and those into workers' shares.

    A position counts through an epoch's permutation: step s takes positions s * batch_size and on, of
    which worker r of W has the r-th part. The remainder below a whole step is left out; the next
    epoch's permutation leaves out another one.
    """

    images: int
    batch_size: int  # over all workers
    workers: int
    forward_batch: int  # images a micro-batch
    seed: int

    def __post_init__(self) -> None:
        if self.images < self.batch_size:
            raise InputError(
                f"the training split has {self.images} images, and one step takes "
                f"batch_size={self.batch_size}: set batch_size to {self.images} or less"
            )

    @classmethod
    def of(cls, config: TrainConfig, images: int) -> "Order":
        """The order of a run over a training split of that many images. Raises InputError."""
        return cls(
            images=images,
            batch_size=config.batch_size,
            workers=config.workers,
            forward_batch=config.forward_batch,
            seed=config.seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    def permutation(self, epoch: int) -> np.ndarray:
        """Image indices by position, int64 [images], read-only."""
        return _permutation(self.images, self.seed, epoch)

    def micro_batches(self, rank: int) -> Iterator[range]:
        """A worker's positions in any epoch, `forward_batch` at a time."""
        share = self.batch_size // self.workers
        for step in range(self.steps_per_epoch):
            first = step * self.batch_size + rank * share
            for start in range(first, first + share, self.forward_batch):
                yield range(start, start + self.forward_batch)


@lru_cache(maxsize=4)
def _permutation(images: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(images)
    order.setflags(write=False)
    return order
