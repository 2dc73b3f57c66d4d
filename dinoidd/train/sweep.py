"""Many trainings of a classifier over one cache: learning rates, losses, decays."""

import hashlib
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from ray import tune

from dinoidd.errors import ConfigError, DinoiddError, DivergedError, OutputError
from dinoidd.interruption import terminated_as_interrupted
from dinoidd.log import logger
from dinoidd.segment.cluster import ACCELERATOR
from dinoidd.segment.pipeline import sentence_in
from dinoidd.segment.run_record import differences
from dinoidd.train.cache import CacheRecord, cache_identity
from dinoidd.train.driver import connect, settled
from dinoidd.train.extraction import extract, finished_cache
from dinoidd.train.placement import Placement, place
from dinoidd.train.plan import Plan, checked, find
from dinoidd.train.run import FREE, run_identity, with_its_weights
from dinoidd.train.trial import Trial, run_trial
from dinoidd.training.class_weights import weighted
from dinoidd.training.config import TrainConfig
from dinoidd.training.recipes import from_plain, to_plain
from dinoidd.training.settings import flattened, is_several, nested, parse_settings

RECORD, RECIPE = "sweep.json", "best_recipe.json"
NAME = "sweep_identity.json"
_FOLDER = "trials"  # of Ray Tune
_FIXED = FREE | {"trained", "cached", "seed", "precision", "views_per_image"}
_GPU_SHARE = 0.25  # of a trial: it is one small matrix, and the masks of validation


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Trials from the best to the worst, and the file with the best one's recipe."""

    trials: list[Trial]
    recipe: str


def sweep(
    config: TrainConfig, grid: Mapping[str, Sequence[str]], *, address: str | None = None
) -> SweepResult:
    """Train the classifier once for every combination of the grid's values.

    Args:
        grid: values as text, by the setting's dotted name.
        address: as for `train`.

    Raises:
        DinoiddError: a setting cannot be swept, a run cannot start, or all trials diverged; everything
            done is kept.
    """
    config = replace(config, workers=1)
    variants = make_variants(config, grid)
    found = find(config)
    if found.model.head == "linear":
        raise ConfigError("a sweep trains the classifier on a cache: a linear head has none")
    connect(address)
    placement = place(found.config)  # before labels are read and anything is written
    plan = checked(found)
    plan.output.check_writable()
    begun = _read_identity(plan)
    as_begun = with_its_weights(begun or {}, plan, config)
    plan = settled(as_begun, placement)
    plans = _with_caches([_variant(plan, config, settings) for settings in variants])
    _begin(as_begun, begun, variants, plans)
    with terminated_as_interrupted():
        placement = placement.waited()
        caches = {p.cache.uri: extract(p, placement) for p in plans}
        ends = _run(plan, [(p, caches[p.cache.uri]) for p in plans], placement)
    trials = [Trial(settings=s, **end) for s, end in zip(variants, ends, strict=True)]
    _write_ranking(plan, variants, trials)
    best = min(range(len(trials)), key=lambda i: trials[i].rank)
    if (reason := trials[best].error) is not None:
        raise DivergedError(f"all {len(trials):,} trials diverged; of the first one {reason}")
    recipe = {k: v for k, v in to_plain(plans[best].config).items() if k != "output"}
    recipe["cache"] = plans[best].cache.uri
    plan.output.write_bytes(RECIPE, json.dumps(recipe, indent=1).encode())
    return SweepResult(trials=_ranked(trials), recipe=plan.output.uri_of(RECIPE))


def _ranked(trials: list[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: trial.rank)


def _write_ranking(plan: Plan, variants: list[dict[str, Any]], trials: list[Trial]) -> None:
    """`sweep.json`; what is not a number is null there."""
    rows = [
        {n: None if v != v else v for n, v in asdict(trial).items()} for trial in _ranked(trials)
    ]
    content = json.dumps({"variants": variants, "trials": rows}, indent=1, allow_nan=False)
    plan.output.write_bytes(RECORD, content.encode())


def make_variants(config: TrainConfig, grid: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The settings of every combination. Raises ConfigError for what cannot be swept."""
    if not config.uses_cache:
        raise ConfigError(
            f"a sweep trains the classifier on a cache: trained={config.trained} has none"
        )
    if not grid or not all(grid.values()):
        raise ConfigError("a sweep needs values: --grid optimizer.learning_rate=1e-4,3e-4")
    _check_names(grid)
    variants = []
    for values in itertools.product(*grid.values()):
        texts = [f"{name}={value}" for name, value in zip(grid, values, strict=True)]
        settings, problems = parse_settings(texts)
        if problems:
            raise ConfigError("; ".join(problems))
        _with_settings(config, settings)  # all mistakes before anything runs
        variants.append(settings)
    return variants


def _check_names(grid: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError for settings whose values no trial can have of its own."""
    if fixed := sorted(_FIXED & grid.keys()):
        raise ConfigError(f"{', '.join(fixed)} cannot be swept: it is the same for all trials")
    if several := [name for name in grid if is_several(name)]:
        raise ConfigError(
            f"{', '.join(several)} cannot be swept: its value is several numbers, and a comma divides "
            "the values of a grid"
        )


def _with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    return from_plain(nested(flattened(to_plain(config)) | settings))


def _read_identity(plan: Plan) -> dict[str, Any] | None:
    """What stands in the output of a sweep that was begun."""
    return json.loads(plan.output.read_bytes(NAME)) if plan.output.exists(NAME) else None


def _begin(
    plan: Plan, begun: dict[str, Any] | None, variants: list[dict[str, Any]], plans: list[Plan]
) -> None:
    """Write down what the sweep is, once nothing stands in its way.

    Raises:
        OutputError: the output has another sweep's trials, or a cache is of something else.
    """
    identity = json.loads(json.dumps(run_identity(plan) | {"variants": variants}))
    if begun is not None and (different := differences(begun, identity)):
        raise OutputError(
            f"{plan.output.uri} belongs to another sweep: {'; '.join(different)}. Choose another output"
        )
    for one in plans:
        finished_cache(one)
    if begun is None:
        plan.output.write_bytes(NAME, json.dumps(identity, indent=1).encode())


def _variant(plan: Plan, asked: TrainConfig, settings: dict[str, Any]) -> Plan:
    """A combination's plan; where it sets how classes are balanced, with weights of its own."""
    config = _with_settings(plan.config, settings)
    if "loss.class_balance" in settings and "loss.class_weights" not in settings:
        loss = replace(config.loss, class_weights=asked.loss.class_weights)
        config = replace(config, loss=weighted(loss, plan.pixels, len(plan.table)))
    return replace(plan, config=config)


def _with_caches(plans: list[Plan]) -> list[Plan]:
    """The plans; those whose caches would differ get a folder each."""
    digests = [_digest(cache_identity(p)) for p in plans]
    if len(set(digests)) == 1:
        return plans
    places = [p.cache.child(digest).uri for p, digest in zip(plans, digests, strict=True)]
    return [
        replace(p, config=replace(p.config, cache=place))
        for p, place in zip(plans, places, strict=True)
    ]


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _resources(placement: Placement) -> dict[str, float]:
    """Of a trial. Those of one GPU share it, and a mixed cluster gives them the asked-for kind."""
    resources = {"cpu": 1.0}
    if placement.use_gpu:
        resources["gpu"] = _GPU_SHARE
    if placement.accelerator_type is not None:
        resources[ACCELERATOR + placement.accelerator_type] = 0.001
    return resources


def _run(
    plan: Plan, plans: list[tuple[Plan, CacheRecord]], placement: Placement
) -> list[dict[str, Any]]:
    """What each trial came to. As many at a time as the cluster holds; Ray Tune keeps those done."""
    logger.info(f"{len(plans):,} trials of {plan.config.epochs} epochs")
    work = partial(run_trial, plans=plans, device=placement.device)
    trainable = tune.with_resources(work, _resources(placement))
    filesystem, path = plan.output.arrow_path()
    place = f"{path}/{_FOLDER}"
    if tune.Tuner.can_restore(place, storage_filesystem=filesystem):
        tuner = tune.Tuner.restore(
            place, trainable, storage_filesystem=filesystem, restart_errored=True
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(list(range(len(plans))))},
            run_config=tune.RunConfig(
                name=_FOLDER,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
    with redirect_stdout(io.StringIO()):  # a banner, which no setting of Ray Tune turns off
        results = tuner.fit()
    if results.errors:
        error = results.errors[0]
        raise DinoiddError(sentence_in(error) or f"a trial failed: {error}") from error
    older = {"error": None}  # what versions before trials could diverge did not tell
    by_trial = {result.config["trial"]: older | result.metrics for result in results}
    names = [f.name for f in fields(Trial) if f.name != "settings"]
    return [{name: by_trial[i][name] for name in names} for i in range(len(plans))]
