"""The error rows of a run, and what the store says today about their images."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from dinoidd.errors import DinoiddError
from dinoidd.output.reader import RunReader
from dinoidd.storage import ObjectInfo, StorageOptions, Store, normalise

_COLUMNS = ["image_id", "uri", "status", "error_kind"]
_BATCH_ROWS = 4096
_ASKING = 16  # questions to the store at a time
_AHEAD = 1024

ErrorRow = tuple[int, str]  # image_id, uri


def error_rows(run: RunReader, kinds: Iterable[str] = ()) -> Iterator[ErrorRow]:
    """Those of the given kinds, or all, by image_id; one batch of a file is in memory."""
    wanted = pa.array(kinds, pa.string())
    for part in run.parts:
        with run.open_part(part) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                chosen = pc.equal(batch["status"].cast(pa.string()), "error")
                if len(wanted):
                    chosen = pc.and_(chosen, pc.is_in(batch["error_kind"], wanted))
                rows = batch.filter(chosen)
                yield from zip(rows["image_id"].to_pylist(), rows["uri"].to_pylist(), strict=True)


def looked_up(
    rows: Iterable[ErrorRow], options: StorageOptions
) -> Iterator[tuple[int, ObjectInfo]]:
    """Their images with size and etag as they are now, in the same order."""
    rest = iter(rows)
    with ThreadPoolExecutor(_ASKING) as pool:
        while batch := list(islice(rest, _AHEAD)):
            found = pool.map(lambda row: _fresh(row[1], options), batch)
            yield from zip((image_id for image_id, _ in batch), found, strict=True)


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
