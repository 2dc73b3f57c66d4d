"""A wrong encoding must not pass silently: what the raw values of both sides say."""

from collections.abc import Iterator

from dinoidd.data.encoding import FEW_LABELS, UNDECIDED, judge_encoding
from dinoidd.evaluation.config import EvaluationConfig
from dinoidd.evaluation.counting import Problem
from dinoidd.evaluation.label_files import LabelFiles
from dinoidd.evaluation.predictions import Predictions
from dinoidd.evaluation.totals import Totals


def check_encodings(
    config: EvaluationConfig, truth: LabelFiles, predictions: Predictions, totals: Totals
) -> Iterator[str]:
    """Notes; contradictions become the first problems. Label images of IDD alone can be told apart."""
    if not config.is_idd:
        return
    if totals.predicted.labels_read and (what := _of_predictions(totals)):
        _put_first(totals, predictions.uri, what)
    if not totals.truth.labels_read:
        return
    verdict = judge_encoding(totals.truth)
    if verdict.encoding == UNDECIDED and totals.truth.labels_read < FEW_LABELS:
        yield f"{verdict.sentence}; they were read as `{config.encoding}`"
    elif not verdict.clear or verdict.encoding != config.encoding:
        is_other = verdict.is_idd and verdict.encoding != config.encoding
        what = verdict.sentence + f"; set --encoding {verdict.encoding}" * is_other
        _put_first(totals, truth.root, what)


def _put_first(totals: Totals, file: str, what: str) -> None:
    totals.problems.insert(0, Problem(file=file, what=what, counted=True, contradicts=True))


def _of_predictions(totals: Totals) -> str | None:
    """Predictions are class ids, and road is 0; 255 is taken for void."""
    tally = totals.predicted
    if judge_encoding(tally).encoding == "road255":
        return (
            f"0 (road) is predicted in none of {tally.labels_read:,} frames, and 255 covers much of "
            f"{tally.no_zero.count:,}: in predictions road is 0, and 255 counts as void"
        )
    return None
