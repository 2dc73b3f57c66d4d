"""A worker's images read by threads of its own process, a little ahead of the training."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dinoidd.ahead import ahead, batches
from dinoidd.errors import InputError
from dinoidd.log import logger
from dinoidd.training.batch import ImageBatch
from dinoidd.training.example_set import (
    Read,
    Skipped,
    TrainingSet,
    ValidationSet,
    to_batch,
)
from dinoidd.training.reading import Example
from dinoidd.training.world import Alone, World

Place = TypeVar("Place")  # in an epoch, or in the validation split


class LocalFeed:
    """The Feed of `dinoidd.training.batch`, without Ray.

    `skipped` holds what could not be used so far, once each, by key.
    """

    def __init__(
        self,
        training: TrainingSet,
        validation: ValidationSet,
        world: World | None = None,
        threads: int = 4,
    ) -> None:
        self._training, self._validation = training, validation
        self._world = world or Alone()
        self._threads = threads
        self.skipped: dict[str, Skipped] = {}

    @property
    def steps_per_epoch(self) -> int:
        return self._training.order.steps_per_epoch

    def train(self, first_epoch: int, epochs: int) -> Iterator[ImageBatch]:
        """Micro-batches of `epochs` epochs; the reading goes on over an epoch's end."""
        order = self._training.order
        places = (
            (epoch, position)
            for epoch in range(first_epoch, first_epoch + epochs)
            for micro_batch in order.micro_batches(self._world.rank)
            for position in micro_batch
        )
        training = self._training
        yield from self._batches(self._reads(lambda place: training.read(*place), places))

    def validation(self) -> Iterator[ImageBatch]:
        """This worker's share; files that cannot be read are left out."""
        positions = self._validation.positions(self._world.rank, self._world.size)
        found = not positions
        for batch in self._batches(self._reads(self._validation.read, positions)):
            found = True
            yield batch
        if not found:
            first = self._validation.samples[positions[0]]
            raise InputError(
                f"not one of a worker's {len(positions)} validation images can be used, such as "
                f"{first.key}: {self.skipped[first.key].reason}"
            )

    def _reads(self, read: Callable[[Place], Read], places: Iterable[Place]) -> Iterator[Read]:
        """What `read` gives of each place, in order."""
        depth = self._training.order.forward_batch + self._threads
        with ThreadPoolExecutor(self._threads) as pool:
            yield from ahead(pool, read, places, depth)

    def _batches(self, reads: Iterator[Read]) -> Iterator[ImageBatch]:
        for some in batches(self._examples(reads), self._training.order.forward_batch):
            yield to_batch(some)

    def _examples(self, reads: Iterator[Read]) -> Iterator[Example]:
        for read in reads:
            for skipped in read.skipped:
                if self.skipped.setdefault(skipped.key, skipped) is skipped:
                    logger.warning("left out %s: %s", skipped.key, skipped.reason)
            if read.example is not None:
                yield read.example
