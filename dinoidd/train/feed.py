"""Images for uncached training, read by Ray Data: anywhere in the cluster, ahead of the worker."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import ray

from dinoidd.ahead import batches
from dinoidd.segment.pipeline import user_error
from dinoidd.train.example_rows import read_of, table_of
from dinoidd.train.read_ahead import MOST_GROUPS, most_ahead, read_ahead
from dinoidd.training.example_set import Read
from dinoidd.training.local_feed import LocalFeed, Place

_IMAGES_PER_GROUP = 16


class RayFeed(LocalFeed):
    """A LocalFeed that has its images read in Ray tasks instead of threads, in the same order."""

    def _reads(self, read: Callable[[Place], Read], places: Iterable[Place]) -> Iterator[Read]:
        groups = batches(places, _IMAGES_PER_GROUP)
        most = most_ahead(self._world.size)
        for some in batches(groups, MOST_GROUPS):
            yield from _read_groups(read, some, most)


def _read_groups(
    read: Callable[[Place], Read], groups: list[list[Place]], most: int
) -> Iterator[Read]:
    """Each group in a task; results in order."""

    def read_group(group: int) -> pa.Table:
        return table_of(read(place) for place in groups[group])

    try:
        for table in read_ahead(len(groups), read_group, most):
            for row in table.to_pylist():
                yield read_of(row)
    except ray.exceptions.RayError as error:
        raise user_error(error) from error
