"""A worker's share of a cache: the frozen network's output in the order of the images it came from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dinoidd.ahead import batches
from dinoidd.checkpoint.cache import local_checkpoint
from dinoidd.errors import InputError
from dinoidd.log import logger
from dinoidd.storage import Store
from dinoidd.train.cache import CacheRecord
from dinoidd.train.rows import Rows
from dinoidd.training.cache_file import CacheFile
from dinoidd.training.config import TrainConfig
from dinoidd.training.observation import Observation
from dinoidd.training.order import Order
from dinoidd.training.world import World


class CachedSplit:
    """One kind's rows. Its files are mapped into memory; those of a bucket are copied here first, once
    a machine, to where remote checkpoints are kept too."""

    def __init__(self, folder: Store, rows: Rows, threads: int) -> None:
        self.rows = rows
        if "://" in folder.uri:
            logger.info("copying %s, %d files, to this machine", folder.uri, rows.files)
        with ThreadPoolExecutor(threads) as pool:
            paths = pool.map(lambda file: _local(folder, rows.name_of(file)), range(rows.files))
            self._files = [CacheFile(path) for path in paths]

    def read(self, image: int, view: int = 0) -> Observation | None:
        """An image's observation; None where it could not be used."""
        file, row = self.rows.place_of(image * self.rows.views + view)
        found = self._files[file].read(row)
        return found if isinstance(found, Observation) else None


class CachedFeed:
    """The Feed of `dinoidd.training.batch`; batches are lists of observations."""

    def __init__(
        self, cache: Store, record: CacheRecord, config: TrainConfig, world: World
    ) -> None:
        self._train, self._val = (
            CachedSplit(cache.child(kind), record.rows[kind], config.threads)
            for kind in ("train", "val")
        )
        self._order = Order.of(config, self._train.rows.images)
        self._world = world

    @property
    def steps_per_epoch(self) -> int:
        return self._order.steps_per_epoch

    def train(self, first_epoch: int, epochs: int) -> Iterator[list[Observation]]:
        """Micro-batches; the views of an image take turns from epoch to epoch."""
        for epoch in range(first_epoch, first_epoch + epochs):
            for positions in self._order.micro_batches(self._world.rank):
                yield [self._observation(epoch, position) for position in positions]

    def validation(self) -> Iterator[list[Observation]]:
        """This worker's share; images that could not be used are left out."""
        images = range(self._world.rank, self._val.rows.images, self._world.size)
        found = (o for o in map(self._val.read, images) if o is not None)
        yield from batches(found, self._order.forward_batch)

    def _observation(self, epoch: int, position: int) -> Observation:
        """That of the position, or of the next of the permutation that can be used."""
        permutation, images = self._order.permutation(epoch), self._train.rows.images
        view = (epoch - 1) % self._train.rows.views
        for step in range(images):
            image = int(permutation[(position + step) % images])
            if (found := self._train.read(image, view)) is not None:
                return found
        raise InputError("the cache holds no training image that could be used")


def _local(folder: Store, name: str) -> Path:
    return Path(local_checkpoint(folder.uri_of(name), folder.options))
