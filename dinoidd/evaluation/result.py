"""An evaluation as one JSON object, and back."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from dinoidd import __version__
from dinoidd.errors import InputError
from dinoidd.evaluation.evaluate import Evaluation
from dinoidd.evaluation.intervals import drive_scores, intervals
from dinoidd.evaluation.scores import boundary_scores, finest_level, levels
from dinoidd.storage import shown

KIND = "dinoidd evaluation"
SAME_SETTINGS = ("classes", "encoding", "resolution")  # of runs that can be compared


def result_of(evaluation: Evaluation) -> dict[str, Any]:
    """Everything there is to say, in the order a person would ask."""
    config, totals = evaluation.config, evaluation.totals
    names, pairing = config.table.names, evaluation.pairing
    return {
        "kind": KIND,
        "version": __version__,
        "ground_truth": shown(config.ground_truth),
        "predictions": evaluation.predictions,
        "settings": {
            "classes": config.table.name,
            "encoding": config.read_as,
            "resolution": config.resolution,
            "size": list(config.size) if config.size else None,
            "resizing": "nearest neighbour",
        },
        "frames": {
            "evaluated": len(totals.frames),
            "without_prediction": pairing.without_prediction,
            "without_label": pairing.without_label,
            "of_other_splits": dict(pairing.other_splits),
            "seconds": round(evaluation.seconds, 3),
        },
        "problems": [asdict(problem) for problem in totals.problems],
        "notes": evaluation.notes,
        "finest_level": finest_level(config.table),
        "levels": levels(config.table, totals.matrix),
        "boundary": _boundary(evaluation),
        "intervals": intervals(totals, names, config.samples, config.seed),
        "drives": drive_scores(totals, config.samples, config.seed),
        "confusion": {
            "rows": "ground truth",
            "columns": "prediction",
            "names": [*names, "void"],
            "matrix": totals.matrix.tolist(),
        },
    }


def _boundary(evaluation: Evaluation) -> dict[str, Any]:
    config = evaluation.config
    scores = boundary_scores(config.table.names, evaluation.totals.boundary, config.boundary_ratio)
    return scores | {"dilation_pixels": sorted(evaluation.totals.boundary_widths)}


def parse_result(text: bytes, file: str) -> dict[str, Any]:
    """The JSON of an earlier evaluation.

    Raises:
        InputError: it is something else.
    """
    try:
        result = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{file} is not JSON: {error}; give the file that --json of `dinoidd evaluate` wrote"
        ) from error
    if not isinstance(result, dict) or result.get("kind") != KIND:
        raise InputError(
            f"{file} is not an evaluation: give the file that --json of `dinoidd evaluate` wrote"
        )
    return result


def check_comparable(ours: dict[str, Any], theirs: dict[str, Any], file: str) -> None:
    """Raise InputError where two evaluations were made with other settings."""
    differing = [
        f"{key} {theirs['settings'].get(key)} (now {ours['settings'][key]})"
        for key in SAME_SETTINGS
        if theirs["settings"].get(key) != ours["settings"][key]
    ]
    if theirs["confusion"]["names"] != ours["confusion"]["names"]:
        differing.append("other class names")
    if differing:
        raise InputError(
            f"{file} was evaluated with other settings: {', '.join(differing)}; evaluate both alike"
        )


def as_json(result: dict[str, Any]) -> bytes:
    """Indented JSON with one line for each row of the confusion matrix."""
    matrix = np.array(result["confusion"]["matrix"])
    marker = "@matrix@"
    confusion = result["confusion"] | {"matrix": marker}
    text = json.dumps(
        result | {"confusion": confusion}, indent=1, ensure_ascii=False, allow_nan=False
    )
    rows = ",\n   ".join(json.dumps(row) for row in matrix.tolist())
    return text.replace(f'"{marker}"', f"[\n   {rows}\n  ]").encode() + b"\n"
