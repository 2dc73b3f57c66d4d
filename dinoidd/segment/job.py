"""A segmentation run from its configuration to its last file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinoidd.config import SegmentConfig
from dinoidd.data.manifest import FOLDER, ManifestInfo, read_manifest_info
from dinoidd.inference.dtype import pick_dtype
from dinoidd.inference.source import ModelDescription, ModelSource
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import logger
from dinoidd.segment import cluster
from dinoidd.segment.lock import Lock, exclusive
from dinoidd.segment.preflight import check_room
from dinoidd.segment.preparation import (
    check_ownership,
    clear,
    make_record,
    prepare_manifest,
    remove_half_written,
    run_identity,
)
from dinoidd.segment.run_record import (
    SUCCESS,
    RunRecord,
    check_same,
    read_record,
    write_record,
)
from dinoidd.segment.session import Session
from dinoidd.segment.waiting import wait_for_place
from dinoidd.storage import StorageOptions, Store, normalise


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run, and whether it was so before this call."""

    summary: dict[str, Any]
    finished_before: bool = False


def segment(
    config: SegmentConfig,
    *,
    device: str = "auto",
    address: str | None = None,
    accelerator_type: str | None = None,
    source: ModelSource | None = None,
    threads: int | None = None,
    of_failures: bool = False,
) -> RunResult:
    """Segment all images of `config.input` into `config.output`, or go on where that stopped.

    Args:
        device: of the model, "auto", "cuda" or "cpu".
        address: of a Ray cluster; None: RAY_ADDRESS, or an embedded Ray.
        accelerator_type: of the nodes that the model runs on, as Ray names it, like A100.
        source: of the model; None: what `config` names.
        threads: of torch in each actor; None: one beside a GPU, otherwise all cores among the actors.
        of_failures: all images failed before, so that the whole input may be dead for good.

    Raises:
        DinoiddError: it cannot start or go on; everything done so far is kept.
    """
    options = StorageOptions(endpoint_url=config.endpoint_url)
    output = Store.open(config.output, options)
    output.check_writable()
    source = source or source_of(config, options)
    model = source.describe()
    check_ownership(output)
    if not config.restart and (summary := _finished(config, output, model)) is not None:
        return RunResult(summary=summary, finished_before=True)
    request = _Request(
        config=config,
        device=device,
        address=address,
        accelerator_type=accelerator_type,
        threads=threads,
        of_failures=of_failures,
    )
    with terminated_as_interrupted(), exclusive(output, "segment") as lock:
        remove_half_written(output)
        return request.work(output, source, model, lock)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What was asked for."""

    config: SegmentConfig
    device: str
    address: str | None
    accelerator_type: str | None
    threads: int | None
    of_failures: bool

    def place(self) -> cluster.Placement:
        cluster.connect(self.address)
        placement = cluster.place(self.config.actors, self.device, self.accelerator_type)
        return placement if self.threads is None else replace(placement, threads=self.threads)

    def work(
        self, output: Store, source: ModelSource, model: ModelDescription, lock: Lock
    ) -> RunResult:
        """Begin the run or go on with it, alone on the output."""
        config = self.config
        if config.restart:  # whatever cannot start is told before anything is thrown away
            self.place()
            clear(config, output, output.options)
        elif (summary := _finished(config, output, model)) is not None:
            return RunResult(summary=summary, finished_before=True)
        manifest = prepare_manifest(config, output, output.options)
        record = _known(config, output, manifest, model)
        if not model.trained:
            logger.warning(
                "the model is not trained: the masks show that the job runs, and mean nothing"
            )
        placement = self.place()
        with terminated_as_interrupted():  # again: Ray has just put its own handler there
            placement = wait_for_place(placement)
            logger.info(_placed(placement))
            if record is None:
                record = _begin(config, output, manifest, model, placement)
            else:
                check_room(
                    config,
                    output,
                    record.layout,
                    manifest,
                    placement,
                    record.identity["image size"],
                )
            session = Session(
                config=config,
                output=output,
                record=record,
                placement=placement,
                source=source.exactly(replace(model, dtype=record.identity["dtype"])),
                image_size=record.identity["image size"],
                lock=lock,
                of_failures=self.of_failures,
            )
            return RunResult(summary=session.run())


def _placed(placement: cluster.Placement) -> str:
    more = ", and on each GPU that joins" if placement.most > placement.actors else ""
    actors = f"{placement.actors} actor{'s'[: placement.actors > 1]}"
    return f"the model runs on {placement.device}, in {actors}{more}"


def _finished(
    config: SegmentConfig, output: Store, model: ModelDescription
) -> dict[str, Any] | None:
    """The summary of a run that is finished; None where there is work. Reads only.

    Raises:
        OutputError: what is finished here is another run.
    """
    if not output.exists(SUCCESS) or read_manifest_info(output.child(FOLDER)) is None:
        return None
    manifest = prepare_manifest(config, output, output.options)
    record = _known(config, output, manifest, model)
    return None if record is None else record.summary


def _known(
    config: SegmentConfig, output: Store, manifest: ManifestInfo, model: ModelDescription
) -> RunRecord | None:
    """The record of the run that was begun here, if any. Raises OutputError where it is another."""
    record = read_record(output)
    if record is not None:  # `auto` is what the run began with, whatever this machine has
        dtype = record.identity["dtype"] if config.dtype == "auto" else config.dtype
        check_same(record, _identity(config, manifest, replace(model, dtype=dtype)), output)
    return record


def _begin(
    config: SegmentConfig,
    output: Store,
    manifest: ManifestInfo,
    model: ModelDescription,
    placement: cluster.Placement,
) -> RunRecord:
    model = replace(model, dtype=pick_dtype(config.dtype, placement.device, model.config))
    identity = _identity(config, manifest, model)
    record = make_record(config, manifest, model, identity, placement.actors)
    check_room(config, output, record.layout, manifest, placement, record.identity["image size"])
    write_record(output, record)
    return record


def _identity(
    config: SegmentConfig, manifest: ManifestInfo, model: ModelDescription
) -> dict[str, object]:
    return run_identity(config, manifest, model, config.image_size or model.config.image_size)


def source_of(config: SegmentConfig, options: StorageOptions) -> ModelSource:
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
