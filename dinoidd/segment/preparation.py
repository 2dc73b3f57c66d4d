"""What a run needs before any model is loaded: a manifest, and a record that says what the run is."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinoidd.config import SegmentConfig
from dinoidd.data.index import Origin, index_origin
from dinoidd.data.manifest import FOLDER, ManifestInfo, read_manifest_info
from dinoidd.data.selection import Selection
from dinoidd.errors import InputError, OutputError, StorageError
from dinoidd.inference.source import ModelDescription
from dinoidd.inference.windows import Framing
from dinoidd.log import logger
from dinoidd.output.reader import COMPACTION, HALF_COMPACTED, RETRY
from dinoidd.output.schema import range_of
from dinoidd.segment.layout import IMAGES, STAGING, make_layout
from dinoidd.segment.run_record import NAME, SUCCESS, RunRecord, is_run, new_record
from dinoidd.storage import StorageOptions, Store, normalise, shown

_OUR_MANIFEST = re.compile(r"part-\d{12}\.parquet|manifest\.json")
_URIS = ("input", "output", "checkpoint", "base")


def origin_of(config: SegmentConfig) -> Origin:
    """Which images a run is asked to take."""
    selection = Selection(where=config.where, sample=config.sample, seed=config.sample_seed)
    inputs = (config.input, *config.more_inputs)
    return Origin(inputs=tuple(map(normalise, inputs)), selection=selection)


def prepare_manifest(config: SegmentConfig, output: Store, options: StorageOptions) -> ManifestInfo:
    """The manifest of the output, made now if there is none.

    Raises:
        InputError, StorageError: the input cannot be listed, or holds no image.
        OutputError: the output holds something else, or is in the middle of a compaction.
    """
    refuse_half_compacted(output)
    origin = origin_of(config)
    manifest = read_manifest_info(output.child(FOLDER))
    if manifest is None:
        logger.info("listing %s", ", ".join(map(shown, origin.inputs)))
        manifest = index_origin(origin, output, options, _log_listing)
        of = "" if manifest.listed is None else f" of {manifest.listed:,}"
        logger.info(f"{manifest.rows:,}{of} images, {manifest.bytes:,} bytes")
        if manifest.skipped:
            kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in manifest.skipped.items())
            logger.info(f"left out, as not images: {kinds}")
    elif different := origin.differences(manifest):
        raise InputError(
            f"{output.uri} was indexed {', and '.join(different)}: "
            "choose another --output, or throw the old results away with --restart"
        )
    return manifest


def check_ownership(output: Store) -> None:
    """Refuse an output folder that holds somebody else's files where a run would put its own.

    Raises:
        OutputError: names a file that is not of a run.
    """
    begun = is_run(output)
    for folder, is_ours in ((IMAGES, _is_part), (FOLDER, _OUR_MANIFEST.fullmatch)):
        for entry in output.child(folder).walk() if output.child(folder).is_folder() else ():
            name = entry.uri.rpartition(f"/{folder}/")[2]
            ours = name.startswith(".") or is_ours(name)
            if not ours or (folder == IMAGES and not begun):
                raise OutputError(
                    f"{output.uri} is not a run of dinoidd, it holds {folder}/{name}: "
                    "choose another --output"
                )


def _is_part(name: str) -> bool:
    return range_of(name, "part") is not None


def clear(config: SegmentConfig, output: Store, options: StorageOptions) -> None:
    """Throw a run away. The success mark goes first, so that no half of it looks finished, and the
    record last, so that what is left is known to be ours.

    Raises:
        InputError, StorageError: there is nothing to begin anew with; everything is kept.
    """
    origin_of(config).check(options)
    output.remove(SUCCESS)
    for folder in (IMAGES, STAGING, RETRY, FOLDER):
        output.child(folder).remove_all()
    output.remove(COMPACTION)
    output.remove(NAME)


def remove_half_written(output: Store) -> None:
    """Remove what killed sessions left half written; nobody else writes here now."""
    try:
        for folder in (FOLDER, IMAGES, STAGING):
            output.child(folder).remove_unfinished()
    except StorageError as error:  # leave to write is all that a run needs
        logger.warning(f"what killed sessions left half written stays: {error}")


def refuse_half_compacted(output: Store) -> None:
    """Raise OutputError where `dinoidd compact` was stopped, so that some rows stand in two files."""
    if output.exists(COMPACTION) and not output.exists(SUCCESS):
        raise OutputError(f"{output.uri} {HALF_COMPACTED}")


def _log_listing(rows: int) -> None:
    if rows % 100_000 < 1024 <= rows:
        logger.info(f"listed {rows:,} images so far")


def run_identity(
    config: SegmentConfig, manifest: ManifestInfo, model: ModelDescription, image_size: int
) -> dict[str, object]:
    """Everything that decides the rows of a run."""
    windows = config.windows
    mode = Framing(image_size=image_size, windows=windows).mode()
    return {
        "input": manifest.input,
        "more inputs": manifest.more_inputs or None,
        **{name.replace("_", " "): value for name, value in manifest.selection.items()},
        "manifest sha256": manifest.sha256,
        "model": model.config.name,
        "model weights": model.weights,
        "class table": model.table.name,
        "image size": image_size,
        "windows": windows and windows.to_dict(),
        "dtype": model.dtype,
        "max pixels": config.max_pixels,
        "max bytes": config.max_bytes,
        "fingerprint": model.fingerprint(image_size=image_size, mode=mode),
    }


def _rows_of_native(config: SegmentConfig) -> int | None:
    """A batch, where windows slide over images as large as they are: 64 of them may be 18 GB."""
    windows = config.windows
    return config.batch_size if windows is not None and windows.short_side is None else None


def make_record(
    config: SegmentConfig,
    manifest: ManifestInfo,
    model: ModelDescription,
    identity: dict[str, object],
    actors: int,
) -> RunRecord:
    """The record of a run that begins now. Signed or password-bearing addresses are told without.

    Paths are absolute: `dinoidd retry` reads them anywhere.
    """
    uris = {name: getattr(config, name) for name in _URIS}
    told: dict[str, Any] = {n: u and shown(normalise(u)) for n, u in uris.items()}
    told["more_inputs"] = [shown(normalise(uri)) for uri in config.more_inputs]
    told["endpoint_url"] = config.endpoint_url and shown(config.endpoint_url)
    if config.classes and Path(config.classes).is_file():
        told["classes"] = str(Path(config.classes).resolve())
    layout = make_layout(
        manifest.rows,
        batch_size=config.batch_size,
        actors=actors,
        rows_per_chunk=config.rows_per_chunk or _rows_of_native(config),
        rows_per_file=config.rows_per_file,
    )
    return new_record(
        identity=identity,
        table=model.table,
        fingerprint=str(identity["fingerprint"]),
        layout=layout,
        config=asdict(config) | told,
    )
