"""An earlier evaluation, from its JSON and the counts beside it."""

from typing import Any

import numpy as np
import pyarrow as pa

from dinoidd.evaluation.comparison import FrameTallies
from dinoidd.evaluation.counts_file import dense, read_counts
from dinoidd.evaluation.evaluate import Evaluation
from dinoidd.evaluation.result import check_comparable, parse_result
from dinoidd.metrics import tally
from dinoidd.storage import ObjectReader, StorageOptions


def counts_name(json_name: str) -> str:
    """The counts of `run.json` lie in `run.counts.parquet`."""
    return f"{json_name.removesuffix('.json')}.counts.parquet"


def tallies_of(evaluation: Evaluation) -> FrameTallies:
    """Of an evaluation just made."""
    totals = evaluation.totals
    return FrameTallies(name=evaluation.predictions, frames=totals.frames, tallies=totals.stacked())


def read_earlier(file: str, ours: dict[str, Any], options: StorageOptions) -> FrameTallies:
    """Of an earlier one that was made with the settings of ours.

    Raises:
        InputError: the file is no evaluation, or one with other settings.
        StorageError: it, or the counts beside it, cannot be read.
        OutputError: the counts are damaged.
    """
    reader = ObjectReader(options)
    theirs = parse_result(reader.read(file), file)
    check_comparable(ours, theirs, file)
    classes = len(ours["confusion"]["names"]) - 1
    frames, tallies = [], []
    for counts in read_counts(pa.BufferReader(reader.read(counts_name(file))), classes):
        frames.append(counts.frame)
        tallies.append(tally(dense(counts, classes), classes))
    return FrameTallies(name=file, frames=frames, tallies=np.array(tallies, np.int64))
