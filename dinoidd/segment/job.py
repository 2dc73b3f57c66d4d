"""A segmentation run from its configuration to its last file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinoidd.config import SegmentConfig
from dinoidd.inference.source import ModelSource
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import logger
from dinoidd.segment import cluster
from dinoidd.segment.preparation import (
    check_ownership,
    clear,
    make_record,
    prepare_manifest,
    run_identity,
)
from dinoidd.segment.run_record import SUCCESS, check_same, read_record, write_record
from dinoidd.segment.session import Session
from dinoidd.storage import StorageOptions, Store, normalise


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run, and whether it was so before this call."""

    summary: dict[str, Any]
    finished_before: bool = False


def segment(
    config: SegmentConfig, *, device: str = "auto", address: str | None = None
) -> RunResult:
    """Segment all images of `config.input` into `config.output`, or go on where that stopped.

    Args:
        device: of the model, "auto", "cuda" or "cpu".
        address: of a Ray cluster; None: RAY_ADDRESS, or an embedded Ray.

    Raises:
        DinoiddError: it cannot start or go on; everything done so far is kept.
    """
    options = StorageOptions(endpoint_url=config.endpoint_url)
    output = Store.open(config.output, options)
    output.check_writable()
    source = _source(config, options)
    model = source.describe()
    image_size = config.image_size or model.config.image_size
    check_ownership(output)
    if config.restart:  # whatever cannot start is told before anything is thrown away
        cluster.connect(address)
        cluster.place(config.actors, device)
        clear(config, output, options)
    manifest = prepare_manifest(config, output, options)
    record = read_record(output)
    if record is not None:  # `auto` is what the run began with, whatever this machine has
        dtype = record.identity["dtype"] if config.dtype == "auto" else config.dtype
        model = replace(model, dtype=dtype)
        check_same(record, run_identity(config, manifest, model, image_size), output)
        if output.exists(SUCCESS):
            return RunResult(summary=record.summary, finished_before=True)
    if not model.trained:
        logger.warning(
            "the model is not trained: the masks show that the job runs, and mean nothing"
        )
    cluster.connect(address)
    placement = cluster.place(config.actors, device)
    if record is None:
        dtype = placement.best_dtype if config.dtype == "auto" else config.dtype
        model = replace(model, dtype=dtype)
        identity = run_identity(config, manifest, model, image_size)
        record = make_record(config, manifest, model, identity, placement.actors)
        write_record(output, record)
    session = Session(
        config=config,
        output=output,
        record=record,
        placement=placement,
        source=source.exactly(model),
        image_size=image_size,
    )
    with terminated_as_interrupted():
        return RunResult(summary=session.run())


def _source(config: SegmentConfig, options: StorageOptions) -> ModelSource:
    """With absolute paths: a worker may have another working directory."""
    classes = config.classes or "idd"
    return ModelSource(
        checkpoint=None if config.checkpoint is None else normalise(config.checkpoint),
        base=None if config.base is None else normalise(config.base),
        preset=config.preset,
        classes=str(Path(classes).resolve()) if Path(classes).is_file() else classes,
        seed=config.seed,
        storage=options,
    )
