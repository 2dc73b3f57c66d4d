"""A data set of generated street scenes in IDD's layout, written by several processes.

Scene `i` of seed `s` depends on (s, i) alone: the number of processes changes no byte.
"""

import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dinoidd.data.dataset_plan import (
    DEFAULT_SPLITS,
    FOLDERS,
    DatasetConfig,
    Frame,
    plan_frames,
    split_sizes,
)
from dinoidd.data.processes import cores, map_in_processes
from dinoidd.data.scenes import generate_scene
from dinoidd.errors import ConfigError, OutputError

MARKER = "dinoidd_dataset.json"  # tells our folders from others, and a whole data set from a part
DRAWING = 1  # raised whenever the same seed draws something else: old and new scenes never mix
IMAGES_PER_WORKER = 32  # fewer are not worth the start of another process
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class _There:
    """What a folder held already."""

    images: int
    labels: int
    frames: int  # with both


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a call of `generate_dataset` did."""

    output: str
    images: int
    resumed: int  # of them, those that were there already
    labels_resumed: int
    drawn: int  # scenes of which image or label was missing
    splits: dict[str, int]  # images a split
    seconds: float


def generate_dataset(
    output: str | Path,
    *,
    images: int = 60,
    size: tuple[int, int] = (480, 270),
    seed: int = 0,
    splits: Sequence[tuple[str, float]] = DEFAULT_SPLITS,
    format: str = "jpg",
    workers: int | None = None,
    restart: bool = False,
    progress: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Write generated scenes to a local folder, or finish a data set that was interrupted.

    Args:
        output: a new or empty folder, or one that this function began with the same settings.
        size: width and height in pixels.
        splits: names and shares; a split's frames are consecutive scenes.
        format: of the images, `jpg` or `png`.
        workers: processes; None: one a CPU core, fewer for a small data set.
        restart: throw away what an earlier call wrote to `output`.
        progress: called with the number of finished images, now and then.

    Raises:
        ConfigError: a setting is out of range; all mistakes are told at once.
        OutputError: the folder is not ours, holds other settings, or cannot be written.
    """
    start, (width, height) = time.monotonic(), size
    config = DatasetConfig(
        images=images, width=width, height=height, seed=seed, splits=tuple(splits), format=format
    )
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1 is needed")
    folder = _local(output)
    try:
        _prepare(folder, config, restart)
        there = _write_frames(folder, config, workers, progress or (lambda done: None))
        _mark(folder, config, complete=True)
    except BrokenProcessPool as error:
        raise OutputError(
            f"a process that drew scenes for {folder} was killed (out of memory?): run the same "
            "command again to go on, with fewer --workers"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write the data set to {folder}: {error}") from error
    return DatasetInfo(
        output=str(folder),
        images=images,
        resumed=there.images,
        labels_resumed=there.labels,
        drawn=images - there.frames,
        splits={name: count for name, count in split_sizes(config) if count},
        seconds=round(time.monotonic() - start, 3),
    )


def _local(output: str | Path) -> Path:
    if "://" in str(output):
        raise ConfigError(
            f"--output {output}: scenes go to a local folder; copy it to a bucket afterwards"
        )
    return Path(output)


def _prepare(folder: Path, config: DatasetConfig, restart: bool) -> None:
    """Make the folder ours, or see that it is and that it holds a part of this very data set."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--output {folder} is a file: name a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(entry.name for entry in folder.iterdir())
    if there and MARKER not in there:
        raise OutputError(
            f"--output {folder} is not empty and was not made by `dinoidd data generate` (it holds "
            f"{', '.join(there[:3])}{', ...' if len(there) > 3 else ''}): use a new or empty folder"
        )
    if there and restart:
        for name in FOLDERS:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
    elif there:
        _refuse_other_settings(folder, config)
    _mark(folder, config, complete=False)


def _refuse_other_settings(folder: Path, config: DatasetConfig) -> None:
    try:
        found = dict(json.loads((folder / MARKER).read_text())["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder / MARKER} is damaged: give --restart to write the data set anew"
        ) from error
    wanted = _settings(config)
    other = [
        f"{key} {found.get(key)} (now {wanted[key]})"
        for key in wanted
        if found.get(key) != wanted[key]
    ]
    if other:
        raise OutputError(
            f"--output {folder} holds a data set of other settings: {', '.join(other)}; give "
            "--restart to throw it away, or name another folder"
        )


def _settings(config: DatasetConfig) -> dict[str, Any]:
    """The settings as they come back from JSON."""
    return json.loads(json.dumps({**asdict(config), "drawing": DRAWING}))


def _mark(folder: Path, config: DatasetConfig, *, complete: bool) -> None:
    marker = {"settings": _settings(config), "complete": complete}
    _write_whole(folder / MARKER, (json.dumps(marker, indent=2) + "\n").encode())


def _write_frames(
    folder: Path, config: DatasetConfig, workers: int | None, progress: Callable[[int], None]
) -> _There:
    """Draw what is missing; what was there is returned."""
    frames = list(plan_frames(config))
    is_there = [_is_there(folder, frame, config) for frame in frames]
    missing = [frame for frame, files in zip(frames, is_there, strict=True) if not all(files)]
    images, labels = (sum(files) for files in zip(*is_there, strict=True))
    done = len(frames) - len(missing)
    there = _There(images=images, labels=labels, frames=done)
    progress(done)
    workers = workers or max(1, min(cores(), -(-len(missing) // IMAGES_PER_WORKER)))
    for _ in map_in_processes(partial(write_frame, folder, config), missing, workers):
        done += 1
        progress(done)
    return there


def _is_there(folder: Path, frame: Frame, config: DatasetConfig) -> tuple[bool, bool]:
    """Image and label: files get their names when they are whole."""
    image, label = folder / frame.image_path(config.format), folder / frame.label_path
    return image.is_file(), label.is_file()


def write_frame(folder: Path, config: DatasetConfig, frame: Frame) -> None:
    """Draw one scene and write those of its label and its image that are not there."""
    image_is_there, label_is_there = _is_there(folder, frame, config)
    rng = np.random.default_rng([config.seed, frame.index])
    scene = generate_scene(rng, config.width, config.height)
    if not label_is_there:
        _write_whole(folder / frame.label_path, _encoded(scene.label, "PNG"))
    if not image_is_there:
        options: dict[str, Any] = {}
        if config.format == "jpg":  # full colour resolution: colours stay on their side of a border
            options = {"quality": JPEG_QUALITY, "subsampling": 0}
        form = "JPEG" if config.format == "jpg" else "PNG"
        _write_whole(
            folder / frame.image_path(config.format), _encoded(scene.image, form, **options)
        )


def _encoded(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def _write_whole(path: Path, data: bytes) -> None:
    """A file of that name is there in whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
