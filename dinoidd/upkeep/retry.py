"""The error rows of a finished run tried again.

A retry is a run of its own in `OUTPUT/_retry`: the error rows' images are its manifest, the model and
its settings are those of the run. When it has ended, its rows replace the old ones, each file written
anew as a whole under its own name. All of it is resumed by the same command.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.config import SegmentConfig, Windows
from dinoidd.data.manifest import FOLDER, read_manifest_info, write_manifest
from dinoidd.errors import ConfigError, OutputError
from dinoidd.inference.source import ModelSource
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import logger
from dinoidd.output.reader import RETRY, RETRY_STATE, RunReader
from dinoidd.output.schema import images_schema
from dinoidd.segment import cluster
from dinoidd.segment.job import segment, source_of
from dinoidd.segment.lock import Lock, exclusive
from dinoidd.segment.preparation import IMAGES, remove_half_written, run_identity
from dinoidd.segment.run_record import RunRecord, differences, now, write_record
from dinoidd.segment.summary import outcome
from dinoidd.storage import DEFAULT_OPTIONS, ObjectInfo, StorageOptions, Store
from dinoidd.upkeep.error_rows import error_rows, looked_up
from dinoidd.upkeep.finished import known_run, refuse_unfinished, tally_of
from dinoidd.upkeep.replacing import NewRows, replace_rows
from dinoidd.upkeep.tasks import run_tasks

_IDS = "image_ids.parquet"  # of the retry's rows, in the run
_OF_MODEL = (
    "class table",
    "dtype",
    "fingerprint",
    "image size",
    "model",
    "model weights",
    "windows",
)
# Options that may make another row of the same image; the others are of speed.
_LIMITS = ("image_timeout", "max_bytes", "max_pixels")


@dataclass(frozen=True, kw_only=True)
class RetryRequest:
    """What `dinoidd retry` was asked to do."""

    output: str
    kinds: tuple[str, ...] = ()  # of errors; none: all
    options: dict[str, Any] = field(default_factory=dict)  # of SegmentConfig, in place of the run's
    storage: StorageOptions = DEFAULT_OPTIONS
    device: str = "auto"
    address: str | None = None
    accelerator_type: str | None = None  # of the model's nodes, as Ray names it
    restart: bool = False  # throw an unfinished retry away

    def state(self) -> dict[str, Any]:
        """What has to be the same when an unfinished retry goes on."""
        limits = {name: self.options[name] for name in _LIMITS if name in self.options}
        return {"kinds": sorted(self.kinds), "limits": limits}


@dataclass(frozen=True, kw_only=True)
class Retried:
    """How many rows were tried again, and what became of them."""

    tried: int = 0
    mended: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # of those that failed again, by kind


def retry(request: RetryRequest) -> Retried:
    """Try the error rows of a finished run again, and replace them by what comes of it.

    Raises:
        DinoiddError: the run is not finished, the model is another one, or a session works on it.
    """
    output = Store.open(request.output, request.storage)
    record = known_run(output)
    refuse_unfinished(output)
    config = _config(record, request, output)
    source = source_of(config, request.storage)
    _check_model(record, config, source, output)
    with terminated_as_interrupted(), exclusive(output, "retry") as lock:
        remove_half_written(output)
        refuse_unfinished(output)
        record, folder = known_run(output), output.child(RETRY)
        if not _prepare(request, record, output, folder):
            return Retried()
        segment(
            config,
            device=request.device,
            address=request.address,
            accelerator_type=request.accelerator_type,
            source=source,
            of_failures=True,
        )
        cluster.connect(request.address)
        with terminated_as_interrupted():
            return _replace(request, record, output, folder, lock)


def _config(record: RunRecord, request: RetryRequest, output: Store) -> SegmentConfig:
    """The run's own configuration, but for what is asked for and where it works."""
    known = {f.name for f in fields(SegmentConfig)}
    values = {name: value for name, value in record.config.items() if name in known}
    values |= {"more_inputs": (), "where": None, "sample": None, "rows_per_chunk": None}
    values |= {"actors": None, "restart": False, "endpoint_url": request.storage.endpoint_url}
    values |= {
        "input": output.child(IMAGES).uri,
        "output": output.child(RETRY).uri,
        "dtype": record.identity["dtype"],
        "image_size": record.identity["image size"],
        "windows": Windows.from_dict(record.config.get("windows")),
    }
    if values["windows"] is not None:
        values["image_size"] = None  # of whole images
    return SegmentConfig(**values | request.options)


def _check_model(
    record: RunRecord, config: SegmentConfig, source: ModelSource, output: Store
) -> None:
    """Refuse rows of another model. Raises OutputError."""
    model = replace(source.describe(), dtype=record.identity["dtype"])
    manifest = read_manifest_info(output.child(FOLDER))
    if manifest is None:
        raise OutputError(f"{output.uri} has no finished manifest: `dinoidd verify` says more")
    identity = run_identity(config, manifest, model, record.identity["image size"])
    before, after = ({n: i.get(n) for n in _OF_MODEL} for i in (record.identity, identity))
    different = differences(before, after)
    if different:
        told = [what for what in different if not what.startswith("fingerprint")] or different
        raise OutputError(
            f"{output.uri} was made with another model: {'; '.join(told)}. Give the one of the run, "
            "with --checkpoint FILE where it has moved"
        )


def _prepare(request: RetryRequest, record: RunRecord, output: Store, folder: Store) -> bool:
    """Find the rows, unless an earlier session did; False where there are none."""
    if folder.exists(RETRY_STATE) and not request.restart:
        state = json.loads(folder.read_bytes(RETRY_STATE))
        if different := differences(
            {name: state.get(name) for name in request.state()}, request.state()
        ):
            raise ConfigError(
                f"{output.uri} is in the middle of another retry: {'; '.join(different)}. Give the "
                "same options to finish it, or --restart to begin anew with the rows that are left"
            )
        logger.info(f"going on with the retry that was begun {state['begun']}")
        return True
    folder.remove(RETRY_STATE)
    folder.remove_all()
    found = _counted(record, request)
    if not found:
        return False
    logger.info(f"looking up the images of {found:,} error rows")
    ids = _write_manifest(request, record, output, folder)
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"image_id": pa.array(ids, pa.int64())}), buffer, compression="zstd")
    folder.write_bytes(_IDS, buffer.getvalue().to_pybytes())
    folder.write_bytes(RETRY_STATE, json.dumps(request.state() | {"begun": now()}).encode())
    return True


def _counted(record: RunRecord, request: RetryRequest) -> int:
    """How many rows run.json has of these kinds. Raises ConfigError for a kind that it has not."""
    errors: dict[str, int] = record.counts["errors"]
    if unknown := [kind for kind in request.kinds if kind not in errors]:
        there = ", ".join(f"{kind} {count:,}" for kind, count in sorted(errors.items()))
        raise ConfigError(
            f"--kind {','.join(unknown)}: the run has no such error rows; it has {there or 'none'}"
        )
    return sum(errors[kind] for kind in request.kinds or errors)


def _write_manifest(
    request: RetryRequest, record: RunRecord, output: Store, folder: Store
) -> np.ndarray:
    """The manifest of the retry; the image ids of its rows are returned."""
    ids: list[int] = []

    def images() -> Iterator[ObjectInfo]:
        rows = error_rows(RunReader(output.uri, output.options), request.kinds)
        for image_id, info in looked_up(rows, output, record.identity["manifest sha256"]):
            ids.append(image_id)
            yield info

    write_manifest(folder.child(FOLDER), images(), input_uri=output.child(IMAGES).uri, counts={})
    return np.array(ids, np.int64)


def _replace(
    request: RetryRequest, record: RunRecord, output: Store, folder: Store, lock: Lock
) -> Retried:
    """Put the new rows into the files, then the counts into the record, then clean up."""
    lock.check()
    tried = known_run(folder)
    run_tasks(replace_rows, _calls(record, tried, output, folder))
    lock.check()
    tally = tally_of(output, record)
    done = Retried(
        tried=tried.counts["images"], mended=tried.counts["ok"], errors=tried.counts["errors"]
    )
    state = json.loads(folder.read_bytes(RETRY_STATE))
    limits = {n: {"was": record.config.get(n), "is": v} for n, v in state["limits"].items()}
    entry = state | asdict(done) | {"ended": now(), "run_id": tried.run_id, "limits": limits}
    others = [e for e in record.retries if e["run_id"] != tried.run_id]
    record = replace(
        record,
        counts=tally.counts(),
        summary=record.summary | outcome(tally, record.table),
        retries=[*others, entry | {"sessions": tried.sessions}],
    )
    write_record(output, record)
    folder.remove(RETRY_STATE)
    folder.remove_all()
    return done


def _calls(
    record: RunRecord, tried: RunRecord, output: Store, folder: Store
) -> Iterator[dict[str, Any]]:
    """What `replace_rows` needs, for each file that has such rows."""
    ids = pq.read_table(io.BytesIO(folder.read_bytes(_IDS)))["image_id"].to_numpy()
    schema = images_schema(record.table, run_id=record.run_id, fingerprint=record.fingerprint)
    size = record.layout.rows_per_file
    for file in np.unique(ids // size).tolist():
        first, stop = np.searchsorted(ids, [file * size, (file + 1) * size]).tolist()
        new = NewRows(
            images=folder.child(IMAGES),
            layout=tried.layout,
            run_id=tried.run_id,
            first=first,
            ids=ids[first:stop],
        )
        shared = {"layout": record.layout, "images": output.child(IMAGES), "schema": schema}
        yield shared | {"file": file, "new": new}
