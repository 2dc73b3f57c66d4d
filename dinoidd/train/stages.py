"""The three stages of an extraction, from a file's number to the file: read -> observe -> write.

Each runs without Ray. Between stages images travel as uint8 bytes, a row each; a row with an error
passes through to the end.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dinoidd.ahead import batches
from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.model import load_base
from dinoidd.models import Segmenter
from dinoidd.storage import Store
from dinoidd.train.allocator import expandable_segments
from dinoidd.train.cache import KINDS, Rows
from dinoidd.train.cache_size import pictured
from dinoidd.train.head_file import write_head
from dinoidd.train.plan import Plan
from dinoidd.training.batch import ImageBatch
from dinoidd.training.cache_file import Unusable, cache_table, errors_of, write_cache_file
from dinoidd.training.key_bytes import key_bytes, key_of
from dinoidd.training.memory import out_of_memory_told
from dinoidd.training.observation import Observation
from dinoidd.training.observe import observe
from dinoidd.training.prepare import prepare
from dinoidd.training.reading import SampleError

_READ = pa.schema(
    [
        ("piece", pa.int64()),
        ("row", pa.int64()),
        ("key", pa.binary()),  # UTF-8 but for what is none in file names
        ("view", pa.int32()),
        ("error", pa.binary()),
        ("image", pa.large_binary()),  # square, RGB, uint8
        ("label", pa.large_binary()),  # square, class ids, uint8
    ]
)


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The files of a cache, numbered: those of training, then those of validation."""

    rows: dict[str, Rows]

    def of(self, piece: int) -> tuple[str, int]:
        """The kind of a piece, and the file of that kind."""
        first = self.rows[KINDS[0]].files
        return (KINDS[0], piece) if piece < first else (KINDS[1], piece - first)

    def name_of(self, piece: int) -> tuple[str, str]:
        """Its folder and file name."""
        kind, file = self.of(piece)
        return kind, self.rows[kind].name_of(file)

    def rows_of(self, piece: int) -> range:
        kind, file = self.of(piece)
        return self.rows[kind].range_of(file)

    def __len__(self) -> int:
        return sum(rows.files for rows in self.rows.values())


@dataclass(frozen=True, kw_only=True)
class ReadExamples:
    """A piece's number to its rows with images."""

    plan: Plan
    pieces: Pieces

    def __call__(self, piece: int) -> pa.Table:
        kind, _ = self.pieces.of(piece)
        with ThreadPoolExecutor(self.plan.config.threads) as pool:
            rows = list(pool.map(lambda row: self._read(kind, row), self.pieces.rows_of(piece)))
        return pa.Table.from_pylist([{"piece": piece} | row for row in rows], schema=_READ)

    def _read(self, kind: str, row: int) -> dict[str, Any]:
        index, view = divmod(row, self.pieces.rows[kind].views)
        sample = getattr(self.plan.samples, kind)[index]
        result: dict[str, Any] = {"row": row, "key": key_bytes(sample.key), "view": view}
        try:
            example = self.plan.reader(validation=kind == "val").read(sample, view)
        except SampleError as error:
            return result | {"error": key_bytes(str(error))}
        return result | {
            "image": example.image_SS3.tobytes(),
            "label": example.label_SS.tobytes(),
        }


class ObserveExamples:
    """Rows with images to rows of the cache; holds the frozen network.

    Raises:
        TrainingError: memory is spent, when it is made or called.
    """

    def __init__(self, plan: Plan, pieces: Pieces, device: str, threads: int) -> None:
        expandable_segments()
        torch.set_num_threads(threads)
        self._plan, self._pieces, self._device = plan, pieces, torch.device(device)
        with out_of_memory_told(plan.config, self._device):
            model, base = load_plan_base(plan)
        write_head(plan, model, base)
        self._model = prepare(model, plan.config, self._device)

    def __call__(self, table: pa.Table) -> pa.Table:
        piece = table.column("piece")[0].as_py()
        kind, _ = self._pieces.of(piece)
        examples = table.drop_columns(["image", "label"]).to_pylist()
        rows: list[Observation | Unusable] = [
            Unusable(key=key_of(row["key"]), view=row["view"], reason=key_of(row["error"] or b""))
            for row in examples
        ]
        usable = [i for i, row in enumerate(examples) if row["error"] is None]
        for some in batches(usable, self._plan.config.network_batch):
            batch = self._batch(table.take(some))
            with out_of_memory_told(self._plan.config, self._device):
                found = observe(self._model, batch, self._plan.config, validation=kind == "val")
            for i, observation in zip(some, found, strict=True):
                keep = kind == "val" and pictured(examples[i]["row"])
                rows[i] = observation if keep else replace(observation, image_SS3=None)
        return cache_table(rows).append_column("piece", pa.repeat(pa.scalar(piece), len(rows)))

    def _batch(self, table: pa.Table) -> ImageBatch:
        size = self._plan.image_size

        def pixels(name: str, *shape: int) -> np.ndarray:
            column = table.column(name).combine_chunks()
            return np.stack([np.frombuffer(v.as_buffer(), np.uint8).reshape(shape) for v in column])

        return ImageBatch(
            images_BSS3=pixels("image", size, size, 3),
            labels_BSS=pixels("label", size, size),
            keys=[key_of(key) for key in table.column("key").to_pylist()],
            views=table.column("view").to_pylist(),
        )


@dataclass(frozen=True, kw_only=True)
class WriteObservations:
    """Rows of the cache to their file; what is handed on is what to tell of it."""

    cache: Store
    pieces: Pieces

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        piece = table.column("piece")[0].as_py()
        expected, rows = self.pieces.rows_of(piece), table.drop_columns(["piece"])
        if len(rows) != len(expected):
            raise AssertionError(f"piece {piece} came with {len(rows)} of {len(expected)} rows")
        folder, name = self.pieces.name_of(piece)
        size = write_cache_file(self.cache.child(folder), name, rows)
        return {"piece": piece, "bytes": size, "errors": errors_of(rows)}


def load_plan_base(plan: Plan) -> tuple[Segmenter, Base]:
    """What the training begins with."""
    config = plan.config
    return load_base(
        checkpoint=config.checkpoint,
        preset_name=config.preset,
        table=plan.table,
        seed=config.seed,
        options=plan.options,
    )
