"""The frozen network, run once over a data set: what a classifier's training needs, into files.

A file is the unit of work and of resuming: its name follows from its rows, it appears whole, and doing
it again replaces it by an equal one. `_SUCCESS` comes last.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dinoidd.errors import InputError, OutputError
from dinoidd.log import logger
from dinoidd.segment.pipeline import run_stages
from dinoidd.segment.progress import Progress
from dinoidd.segment.summary import size_text
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store
from dinoidd.train.cache import (
    FORMAT,
    HEAD,
    SUCCESS,
    CacheRecord,
    cache_identity,
    check_same_cache,
    read_cache_record,
    write_cache_record,
)
from dinoidd.train.cache_size import row_bytes, rows_per_file
from dinoidd.train.ends import ReadExamples, WriteObservations
from dinoidd.train.placement import Placement
from dinoidd.train.plan import Plan
from dinoidd.train.rows import KINDS, Pieces, Rows
from dinoidd.train.stages import ObserveExamples
from dinoidd.training.cache_file import read_errors

_SHOWN = 3  # unusable images that are named


@dataclass
class Done:
    """What the finished files came to."""

    pieces: set[int] = field(default_factory=set)
    bytes: int = 0
    skipped: dict[str, dict[str, str]] = field(default_factory=lambda: {k: {} for k in KINDS})

    def add(self, piece: int, kind: str, size: int, errors: dict[str, str]) -> None:
        self.pieces.add(piece)
        self.bytes += size
        self.skipped[kind] |= errors


def finished_cache(plan: Plan) -> CacheRecord | None:
    """The record of the plan's cache, if all of it is there.

    Raises:
        OutputError: the folder holds a cache of something else.
    """
    record = read_cache_record(plan.cache)
    if record is None:
        return None
    check_same_cache(record, cache_identity(plan), plan.cache)
    return record if plan.cache.exists(SUCCESS) else None


def extract(plan: Plan, placement: Placement) -> CacheRecord:
    """Make the plan's cache, or what is missing of it. To be called when Ray is connected.

    Raises:
        DinoiddError: it cannot be made; what is done is kept.
    """
    if (record := finished_cache(plan)) is not None:
        return record
    plan.cache.check_writable()
    record = read_cache_record(plan.cache) or _begin(plan, placement)
    pieces = Pieces(rows=record.rows)
    done = _done_before(plan.cache, pieces)
    _work(plan, pieces, placement, done)
    for kind, reasons in done.skipped.items():
        _tell_skipped(kind, reasons, record.rows[kind].images)
    record = record.with_result(done.bytes, done.skipped)
    write_cache_record(plan.cache, record)
    plan.cache.write_bytes(SUCCESS, b"")
    logger.info(f"cache: {size_text(record.bytes)} in {len(pieces):,} files, {plan.cache.uri}")
    return record


def _begin(plan: Plan, placement: Placement) -> CacheRecord:
    """The record of a new cache, after its size was told."""
    config, samples = plan.config, plan.samples
    sizes, rows = {}, {}
    for kind, images, views in (
        ("train", len(samples.train), config.views_per_image),
        ("val", len(samples.val), 1),
    ):
        sizes[kind] = row_bytes(config, plan.model, plan.image_size, validation=kind == "val")
        per_file = rows_per_file(
            sizes[kind], images * views, batch=config.network_batch, actors=placement.actors
        )
        rows[kind] = Rows(images=images, views=views, rows_per_file=per_file)
    _tell_size(plan, sizes, rows)
    record = CacheRecord(
        identity=cache_identity(plan),
        classes=plan.table.stored(),
        precision=config.precision,
        rows=rows,
        format=FORMAT,
    )
    write_cache_record(plan.cache, record)
    return record


def _tell_size(plan: Plan, sizes: dict[str, int], rows: dict[str, Rows]) -> None:
    """Say how large the cache will be. Raises OutputError where a local disk has less room."""
    needed = sum(sizes[kind] * rows[kind].rows for kind in KINDS)
    parts = " + ".join(
        f"{rows[kind].rows:,} of {kind} at {size_text(sizes[kind])}" for kind in KINDS
    )
    line = f"the cache will take about {size_text(needed)} ({parts}) at {plan.cache.uri}"
    free = _free_bytes(plan.cache)
    if free is None:
        logger.info(line)
        return
    logger.info(f"{line}, where {size_text(free)} are free")
    if needed > free:
        raise OutputError(
            f"{line}, where only {size_text(free)} are free: name another place with cache, or set fewer "
            "views_per_image"
        )


def _free_bytes(folder: Store) -> int | None:
    """Of the disk that a local folder is on; None for a bucket."""
    if "://" in folder.uri:
        return None
    there = next(p for p in [Path(folder.uri), *Path(folder.uri).parents] if p.exists())
    return shutil.disk_usage(there).free


def _done_before(cache: Store, pieces: Pieces) -> Done:
    """The files that are there: names appear whole or not at all, so a name means a whole file."""
    done = Done()
    if not cache.exists(HEAD):
        return done
    there = {kind: set(cache.child(kind).names()) for kind in KINDS}
    for piece in range(len(pieces)):
        kind, name = pieces.name_of(piece)
        if name in there[kind]:
            folder = cache.child(kind)
            info = folder.info(name)
            done.add(piece, kind, (info and info.size) or 0, read_errors(folder, name))
    return done


def _work(plan: Plan, pieces: Pieces, placement: Placement, done: Done) -> None:
    """Do the pieces that are not done."""
    pending = [piece for piece in range(len(pieces)) if piece not in done.pieces]
    if not pending:
        return
    total = sum(rows.rows for rows in pieces.rows.values())
    before = total - sum(len(pieces.rows_of(piece)) for piece in pending)
    logger.info(f"running the frozen network over {total:,} images" + _resumed(before))
    progress = Progress(total, before)
    results = run_stages(
        pending,
        read=ReadExamples(
            samples=plan.samples,
            readers={kind: plan.reader(validation=kind == "val") for kind in KINDS},
            pieces=pieces,
            threads=plan.config.threads,
        ),
        model=ObserveExamples,
        arguments={
            "plan": plan,
            "pieces": pieces,
            "device": placement.device,
            "threads": placement.threads,
        },
        write=WriteObservations(cache=plan.cache, pieces=pieces),
        placement=placement.models(),
    )
    try:
        for result in results:
            piece, errors = result["piece"], result["errors"]
            done.add(piece, pieces.of(piece)[0], result["bytes"], errors)
            images = len(pieces.rows_of(piece))
            broken = Counter({"unusable": len(errors)})
            progress.add(Tally(images=images, ok=images - len(errors), errors=broken))
    finally:
        progress.close()


def _resumed(before: int) -> str:
    return f": {before:,} are done, in whole files" if before else ""


def _tell_skipped(kind: str, reasons: dict[str, str], images: int) -> None:
    if not reasons:
        return
    examples = "; ".join(f"{key}: {why}" for key, why in list(reasons.items())[:_SHOWN])
    told = f"{len(reasons):,} of {images:,} images of {kind} cannot be used ({examples})"
    if len(reasons) == images:
        raise InputError(f"{told}: there is nothing to train on")
    logger.warning("%s; training goes on without them", told)
