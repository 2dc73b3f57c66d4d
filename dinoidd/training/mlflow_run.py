"""The epochs of a training in MLflow, where it was asked for."""

import json
from dataclasses import asdict
from typing import Any

from dinoidd.errors import ConfigError, OutputError
from dinoidd.storage import Store, shown
from dinoidd.training.config import TrainConfig

NAME = "mlflow.json"  # in the output: which run it is, so that a resumed training goes on with it
_EXPERIMENT = "dinoidd"
_LEFT_OUT = ("iou", "parts", "absent", "confusion", "epoch")  # of a row: what is no single figure


class MlflowRun:
    """One MLflow run a training; its metrics have the epoch as their step."""

    def __init__(self, uri: str, output: Store, config: TrainConfig) -> None:
        """Find or begin the run.

        Raises:
            ConfigError: mlflow is not installed.
            OutputError: the server does not answer as it should.
        """
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ConfigError(
                f"mlflow={shown(uri)}: mlflow is not installed: pip install 'dinoidd[mlflow]', or "
                "leave mlflow out"
            ) from error
        self._uri = uri
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._run = self._find(output) or self._begin(output, config)
            history = self._client.get_metric_history(self._run, "train_loss")
        except Exception as error:  # its stores raise whatever their backends do
            raise self._failure(error) from error
        self._told = max((metric.step for metric in history), default=0)

    def epoch(self, row: dict[str, Any]) -> None:
        """Send an epoch of `metrics.jsonl`; one that was sent before the run was resumed is not again."""
        if row["epoch"] <= self._told:
            return
        values = {name: value for name, value in row.items() if name not in _LEFT_OUT}
        values |= {f"iou/{_name(name)}": value for name, value in row["iou"].items()}
        try:
            for name, value in values.items():
                if value is not None:
                    self._client.log_metric(self._run, name, float(value), step=row["epoch"])
        except Exception as error:
            raise self._failure(error) from error

    def close(self) -> None:
        try:
            self._client.set_terminated(self._run)
        except Exception as error:
            raise self._failure(error) from error

    def _find(self, output: Store) -> str | None:
        if not output.exists(NAME):
            return None
        known = json.loads(output.read_bytes(NAME))
        return known["run"] if known["uri"] == shown(self._uri) else None

    def _begin(self, output: Store, config: TrainConfig) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(_EXPERIMENT)
        run = self._client.create_run(experiment, run_name=output.uri.rpartition("/")[2])
        for name, value in asdict(config).items():
            parts = value.items() if isinstance(value, dict) else [(None, value)]
            for part, setting in parts:
                key = f"{name}.{part}" if part else name
                self._client.log_param(run.info.run_id, key, setting)
        known = {"uri": shown(self._uri), "run": run.info.run_id}
        output.write_bytes(NAME, json.dumps(known).encode())
        return run.info.run_id

    def _failure(self, error: Exception) -> OutputError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        return OutputError(f"MLflow at {shown(self._uri)} cannot be written to: {reason}")


def _name(text: str) -> str:
    """MLflow's names have letters, digits, `_-. /` alone."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in text)
