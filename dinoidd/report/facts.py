"""What `run.json` says about a run, as (name, value) pairs; anything may be missing there."""

import json
from datetime import datetime
from typing import Any

from dinoidd.output.reader import RunReader
from dinoidd.storage import shown

_SETTINGS = ("model", "model weights", "class table", "image size", "windows", "dtype")
_STEADY_SECONDS = 10.0  # a rate over a shorter time is chance: pieces come at once


def run_facts(run: RunReader) -> list[tuple[str, str]]:
    """Identity, model, settings, times, speed and versions."""
    info = run.info or {}
    identity, summary = _object(info, "identity"), _object(info, "summary")
    facts = [("Output", shown(run.uri)), ("Run", info.get("run_id"))]
    facts += [("Input", identity.get("input"))]
    facts += [(name.capitalize(), identity.get(name)) for name in _SETTINGS]
    facts += [("Model fingerprint", info.get("fingerprint"))]
    facts += [
        ("Started", _moment(info.get("started"))),
        ("Finished", _moment(info.get("finished"))),
    ]
    rate = speed(run)
    facts += [("Speed", rate and f"{rate:,.1f} images/s after start-up")]
    facts += [("Read", _size(summary.get("bytes_read")))]
    facts += [("Written", _size(summary.get("bytes_written")))]
    sessions = info.get("sessions")
    if isinstance(sessions, list) and len(sessions) > 1:
        facts.append(("Sessions", f"{len(sessions)} (it was resumed)"))
    versions = _object(info, "versions")
    facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def speed(run: RunReader) -> float | None:
    """Images a second after start-up, of the last session; None where that was too short to say."""
    session = _object(_object(run.info or {}, "summary"), "session")
    match session:
        case {
            "steady_images_per_second": int() | float() as rate,
            "seconds": int() | float() as seconds,
            "startup_seconds": int() | float() as startup,
        }:
            return float(rate) if seconds - startup >= _STEADY_SECONDS else None
    return None


def settings_json(run: RunReader) -> str | None:
    """The whole configuration; None where there is none."""
    config = _object(run.info or {}, "config")
    return json.dumps(config, indent=1, ensure_ascii=False) if config else None


def warnings(run: RunReader) -> list[str]:
    """What a reader has to know before believing the figures."""
    found = []
    if not run.finished:
        found.append("The run is not finished: the figures are of the images so far.")
    weights = _object(run.info or {}, "identity").get("model weights")
    if isinstance(weights, str) and weights.startswith("random"):
        found.append("The model's weights are random: the masks mean nothing.")
    return found


def _object(values: dict[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _moment(value: Any) -> str | None:
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (TypeError, ValueError):
        return None


def _size(value: Any) -> str | None:
    if not isinstance(value, int | float):
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.1f} {unit}" if unit != "B" else f"{value:,} B"
        value /= 1000
    return f"{value:,.2f} TB"
