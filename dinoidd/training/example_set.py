"""The examples of a run by their place in an epoch; what cannot be read is replaced, and told."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dinoidd.errors import InputError
from dinoidd.training.batch import ImageBatch
from dinoidd.training.order import Order
from dinoidd.training.reading import Example, ExampleReader, SampleError
from dinoidd.training.samples import Sample

_TRIES = 20  # in a row; of data of which so many cannot be read, nothing is learned


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A sample that could not be used, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Read:
    """What reading one place gave: an example (None: left out), and the samples that failed."""

    example: Example | None
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The training split in the order of its epochs. Picklable."""

    samples: list[Sample]
    order: Order
    reader: ExampleReader

    def read(self, epoch: int, position: int) -> Read:
        """The example at a position of the epoch; the epoch is its view.

        In place of one that cannot be used comes the next of the epoch's permutation that can, so
        that a step's images stay the same for any number of workers.

        Raises:
            InputError: 20 in a row cannot be used.
            StorageError: the store does not answer.
        """
        permutation = self.order.permutation(epoch)
        skipped: list[Skipped] = []
        for step in range(min(_TRIES, len(self.samples))):
            sample = self.samples[permutation[(position + step) % len(self.samples)]]
            try:
                example = self.reader.read(sample, epoch)
                return Read(example=example, skipped=tuple(skipped))
            except SampleError as error:
                skipped.append(Skipped(key=sample.key, reason=str(error)))
        raise InputError(
            f"{len(skipped)} training images in a row cannot be used, the last one because: "
            f"{skipped[-1].reason}"
        )


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """The validation split, each image once. Picklable."""

    samples: list[Sample]
    reader: ExampleReader

    def positions(self, rank: int, workers: int) -> range:
        """A worker's share: shares differ by one image at most, and may be empty."""
        return range(rank, len(self.samples), workers)

    def read(self, position: int) -> Read:
        """The example at a position, or why it is left out. Raises StorageError."""
        sample = self.samples[position]
        try:
            return Read(example=self.reader.read(sample))
        except SampleError as error:
            skipped = Skipped(key=sample.key, reason=str(error))
            return Read(example=None, skipped=(skipped,))


def to_batch(examples: Iterable[Example]) -> ImageBatch:
    """Examples, one at least, as arrays."""
    rows = list(examples)
    return ImageBatch(
        images_BSS3=np.stack([row.image_SS3 for row in rows]),
        labels_BSS=np.stack([row.label_SS for row in rows]),
        keys=[row.key for row in rows],
        views=[row.view for row in rows],
    )
