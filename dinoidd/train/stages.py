"""The middle stage of an extraction, between those of `dinoidd.train.ends`: read -> observe -> write.

Each runs without Ray. Between stages images travel as uint8 bytes, a row each; a row with an error
passes through to the end.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from dinoidd.ahead import batches
from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.model import load_base
from dinoidd.models import Segmenter
from dinoidd.train.allocator import expandable_segments
from dinoidd.train.cache_size import pictured
from dinoidd.train.head_file import write_head
from dinoidd.train.plan import Plan
from dinoidd.train.rows import Pieces
from dinoidd.training.batch import ImageBatch
from dinoidd.training.cache_file import Unusable, cache_table
from dinoidd.training.key_bytes import key_of
from dinoidd.training.memory import out_of_memory_told
from dinoidd.training.observation import Observation
from dinoidd.training.observe import observe
from dinoidd.training.prepare import prepare


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
