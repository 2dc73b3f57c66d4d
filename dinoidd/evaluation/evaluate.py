"""One set of predictions against the ground truth: list, pair, count."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dinoidd.classes.raw import plain_values
from dinoidd.errors import InputError
from dinoidd.evaluation.config import EvaluationConfig
from dinoidd.evaluation.counting import Counted, Counting, Problem, in_batches
from dinoidd.evaluation.counts_file import CountsWriter
from dinoidd.evaluation.encodings import check_encodings
from dinoidd.evaluation.label_files import LabelFiles
from dinoidd.evaluation.label_image import LabelReader
from dinoidd.evaluation.pairing import Pairing, pair
from dinoidd.evaluation.predictions import Predictions
from dinoidd.evaluation.progress import Progress
from dinoidd.evaluation.runner import Runner
from dinoidd.evaluation.splits import Splits
from dinoidd.evaluation.totals import Totals


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The sums, and which frames and files are not in them."""

    config: EvaluationConfig
    predictions: str
    totals: Totals
    pairing: Pairing
    seconds: float
    notes: list[str]  # what a person should know, and what is no failure

    @property
    def missing(self) -> int:
        return len(self.pairing.without_prediction) + len(self.pairing.without_label)


def evaluate(
    config: EvaluationConfig,
    truth: LabelFiles,
    predictions: Predictions,
    runner: Runner,
    counts_file: Path,
) -> Evaluation:
    """Count all frames that have a label and a prediction.

    Args:
        runner: who counts, here or on a cluster.
        counts_file: the Parquet file to write every frame's counts to.

    Raises:
        InputError: no frame has both, or none could be counted.
        StorageError: a listing failed.
    """
    splits = Splits.of(truth.root, config.split, config.options)
    pairing = pair(truth, predictions, splits)
    totals = Totals(classes=len(config.table))
    progress = Progress(len(pairing.pairs))
    writer = CountsWriter(counts_file)
    try:
        for counted in _counted(config, predictions, pairing, runner):
            totals.add(counted)
            writer.add(counted.frames)
            progress.add(counted)
    finally:
        writer.close()
        progress.close()
    totals.problems += [Problem(file=file, what=what) for file, what in pairing.ambiguous]
    notes = list(check_encodings(config, truth, predictions, totals))
    if not totals.frames:
        first = totals.problems[0] if totals.problems else None
        what = f", the first because: {first.file}: {first.what}" if first else ""
        raise InputError(
            f"none of {len(pairing.pairs):,} frames could be counted{what}; mend or replace the files, "
            "and check that --classes is the class table of the labels and the predictions"
        )
    return Evaluation(
        config=config,
        predictions=predictions.title,
        totals=totals,
        pairing=pairing,
        seconds=progress.seconds,
        notes=notes,
    )


def _counted(
    config: EvaluationConfig, predictions: Predictions, pairing: Pairing, runner: Runner
) -> Iterator[Counted]:
    table = config.table
    counting = Counting(
        truth=LabelReader(config.raw, len(table)),
        predicted=LabelReader(plain_values(len(table), table.ignore_index), len(table)),
        predictions=predictions,
        size=config.size,
        any_size=config.any_size,
        boundary_ratio=config.boundary_ratio,
        options=config.options,
    )
    return runner(counting, in_batches(pairing.pairs, predictions))
