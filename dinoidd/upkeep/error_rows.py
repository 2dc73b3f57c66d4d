"""The error rows of a run, and what the store says today about their images."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from dinoidd.data.manifest import FOLDER, read_rows
from dinoidd.errors import DinoiddError
from dinoidd.output.reader import RunReader
from dinoidd.storage import ObjectInfo, StorageOptions, Store, normalise

_COLUMNS = ["image_id", "status", "error_kind"]
_BATCH_ROWS = 4096
_ASKING = 16  # questions to the store at a time
_AHEAD = 1024


def error_rows(run: RunReader, kinds: Iterable[str] = ()) -> Iterator[int]:
    """The image_ids of those of the given kinds, or all, in order; one batch of a file is in memory."""
    wanted = pa.array(kinds, pa.string())
    for part in run.parts:
        with run.open_part(part) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                chosen = pc.equal(batch["status"].cast(pa.string()), "error")
                if len(wanted):
                    chosen = pc.and_(chosen, pc.is_in(batch["error_kind"], wanted))
                yield from batch.filter(chosen)["image_id"].to_pylist()


def looked_up(
    image_ids: Iterable[int], run: Store, version: str
) -> Iterator[tuple[int, ObjectInfo]]:
    """Images of a run with size and etag as they are now, in the same order.

    Their addresses are the manifest's: those in the results are without password and signature.

    Args:
        image_ids: ascending.
        version: of the run's manifest, its sha256.
    """
    rest = iter(image_ids)
    with ThreadPoolExecutor(_ASKING) as pool:
        while batch := list(islice(rest, _AHEAD)):
            uris = [_address(run, image_id, version) for image_id in batch]
            found = pool.map(lambda uri: _fresh(uri, run.options), uris)
            yield from zip(batch, found, strict=True)


def _address(run: Store, image_id: int, version: str) -> str:
    uri: str = read_rows(run.child(FOLDER), image_id, image_id + 1, version)["uri"][0].as_py()
    return uri


def _fresh(uri: str, options: StorageOptions) -> ObjectInfo:
    """Nothing but the address where the store has no answer: reading it will tell why."""
    try:
        folder, _, name = normalise(uri).rpartition("/")
        info = Store.open(folder or "/", options).info(name)
    except DinoiddError:
        info = None
    if info is None:
        return ObjectInfo(uri=uri, size=None)
    return ObjectInfo(uri=uri, size=info.size, etag=info.etag)
