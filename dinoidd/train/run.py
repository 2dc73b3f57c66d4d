"""The record of a training run: what it is, so that it goes on by the same settings and no others."""

import json
from dataclasses import dataclass, replace
from typing import Any

from dinoidd.errors import OutputError
from dinoidd.segment.run_record import differences, now, versions
from dinoidd.storage import Store
from dinoidd.train.plan import Plan, told_of_files
from dinoidd.training.config import TrainConfig
from dinoidd.training.parameters import norms_learn
from dinoidd.training.recipes import to_plain
from dinoidd.training.settings import flattened

NAME, CONFIG, SUMMARY = "training.json", "config.json", "summary.json"
# Where and how fast it runs, and what the identity tells in another way. Where BatchNorms learn, what
# a forward sees of a step decides as well.
_FORWARD = {"workers", "micro_batch"}
FREE = {
    *("data", "output", "checkpoint", "preset", "classes", "encoding", "cache", "endpoint_url"),
    *("train_split", "val_split", "max_train_images", "max_val_images", "image_size"),
    *(*_FORWARD, "use_gpu", "accelerator_type", "threads", "max_failures"),
    *("activation_checkpointing", "sharding", "compile", "mlflow"),
}


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What stands in the output of a run that was begun."""

    identity: dict[str, Any]
    precision: str
    summary: dict[str, Any] | None = None  # of a finished one


def run_identity(plan: Plan) -> dict[str, Any]:
    """Everything that decides the curve of a run, as it comes back from JSON."""
    settings = flattened(to_plain(plan.config))
    free = FREE - _FORWARD if norms_learn(plan.config, plan.model.head) else FREE
    decisive = {name: value for name, value in settings.items() if name not in free}
    return json.loads(json.dumps(plan.identity() | decisive))


def read_run(output: Store) -> TrainingRun | None:
    """The run of an output; None where none was begun.

    Raises:
        OutputError: the record is none that this version can read.
    """
    if not output.exists(NAME):
        return None
    try:
        identity = json.loads(output.read_bytes(NAME))["identity"]
        done = output.exists(SUMMARY)
        summary = json.loads(output.read_bytes(SUMMARY)) if done else None
        return TrainingRun(identity=identity, precision=identity["precision"], summary=summary)
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{output.uri_of(NAME)} is no record of a training that this version can resume "
            f"({error!r}): choose another output"
        ) from error


def with_its_weights(identity: dict[str, Any], plan: Plan, asked: TrainConfig) -> Plan:
    """The plan with the class weights that a run was begun with, where they follow from the labels.

    They are no setting of its own then: another version may look at other labels, and the run goes on.
    """
    begun = identity.get("loss.class_weights")
    if asked.loss.class_weights is not None or not asked.loss.class_balance or not begun:
        return plan
    loss = replace(plan.config.loss, class_weights=tuple(begun))
    return replace(plan, config=replace(plan.config, loss=loss))


def begin_run(plan: Plan) -> None:
    """Write down what the run is, before anything else is written."""
    record = {"identity": run_identity(plan), "started": now(), "versions": versions()}
    config = to_plain(plan.config)
    plan.output.write_bytes(CONFIG, json.dumps(config, indent=1).encode())
    plan.output.write_bytes(NAME, json.dumps(record, indent=1).encode())


def check_same_run(run: TrainingRun, plan: Plan) -> None:
    """Refuse to go on with anything else.

    Raises:
        OutputError: names each thing that differs, and tells what to do for more epochs.
    """
    different = differences(run.identity, run_identity(plan))
    if not different:
        return
    place, onwards = plan.output, ""
    if place.exists("best.safetensors"):
        onwards = f"; checkpoint={place.uri_of('best.safetensors')} begins where this one came to"
    raise OutputError(
        f"{place.uri} belongs to another training: {'; '.join(different)}. "
        f"{told_of_files(different)}Use the same settings to go on with it, or another output{onwards}"
    )
