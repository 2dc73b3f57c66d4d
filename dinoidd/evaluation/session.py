"""An evaluation from what was asked to its result: predictions opened, counted, compared, written."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinoidd.evaluation.comparison import compare
from dinoidd.evaluation.config import EvaluationConfig
from dinoidd.evaluation.earlier import read_earlier, tallies_of
from dinoidd.evaluation.evaluate import Evaluation, evaluate
from dinoidd.evaluation.label_files import LabelFiles
from dinoidd.evaluation.opening import list_truth, open_predictions
from dinoidd.evaluation.predictions import Predictions
from dinoidd.evaluation.report import folder_of, write_json, write_report
from dinoidd.evaluation.result import result_of
from dinoidd.evaluation.runner import Runner
from dinoidd.storage import Store


@dataclass(frozen=True, kw_only=True)
class Session:
    """An evaluation and where its results go; `against` is an earlier JSON or other predictions."""

    config: EvaluationConfig
    predictions: Predictions
    runner: Runner
    against: str | None = None
    json: str | None = None
    report: str | None = None

    def run(self) -> dict[str, Any]:
        """Evaluate, compare and write; the result as it is in the JSON.

        Raises:
            DinoiddError: it cannot start, nothing could be counted, or a result cannot be written.
        """
        self._check_writable()
        truth = list_truth(self.config)
        with tempfile.TemporaryDirectory(prefix="dinoidd-evaluate-") as folder:
            counts = Path(folder, "counts.parquet")
            evaluation = evaluate(self.config, truth, self.predictions, self.runner, counts)
            result = result_of(evaluation)
            if self.against is not None:
                other = Path(folder, "against.parquet")
                result["comparison"] = self._compare(evaluation, result, truth, other)
            if self.json is not None:
                write_json(result, counts, self.json, self.config.options)
            if self.report is not None:
                write_report(result, counts, self.config.table, self.report, self.config.options)
        return result

    def _check_writable(self) -> None:
        """Now, not after an hour of counting."""
        if self.json is not None:
            folder_of(self.json, self.config.options)[0].check_writable()
        if self.report is not None:
            Store.open(self.report, self.config.options).check_writable()

    def _compare(
        self, evaluation: Evaluation, result: dict[str, Any], truth: LabelFiles, counts: Path
    ) -> dict[str, Any]:
        config = self.config
        assert self.against is not None
        if self.against.endswith(".json"):
            theirs = read_earlier(self.against, result, config.options)
        else:
            predictions, _ = open_predictions(self.against, config.table, config.options)
            theirs = tallies_of(evaluate(config, truth, predictions, self.runner, counts))
        ours = tallies_of(evaluation)
        names = config.table.names
        return compare(ours, theirs, names, samples=config.samples, seed=config.seed)
