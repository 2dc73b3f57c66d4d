"""`run.json`: what a run is, so that it can be resumed by the same settings and no others."""

import json
import platform
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from dinoidd import __version__
from dinoidd.classes import ClassTable
from dinoidd.errors import OutputError
from dinoidd.segment.layout import Layout
from dinoidd.segment.tally import Tally
from dinoidd.storage import Store

NAME = "run.json"
SUCCESS = "_SUCCESS"
_VERSIONS = ("ray", "torch", "pyarrow", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run. `identity` decides its rows: a run is resumed only where all of it is equal."""

    run_id: str
    identity: dict[str, Any]
    classes: dict[str, Any]
    fingerprint: str
    layout: Layout
    config: dict[str, Any]
    started: str
    finished: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    retries: list[dict[str, Any]] = field(default_factory=list)  # of `dinoidd retry`
    compactions: list[dict[str, Any]] = field(default_factory=list)  # of `dinoidd compact`

    @property
    def table(self) -> ClassTable:
        return ClassTable.from_dict(self.classes)

    def with_session(self, session: dict[str, Any]) -> "RunRecord":
        """One more stretch of work."""
        return replace(self, sessions=[*self.sessions, {"ended": now()} | session])

    def with_result(self, tally: Tally, summary: dict[str, Any]) -> "RunRecord":
        return replace(self, finished=now(), counts=tally.counts(), summary=summary)


def new_record(
    *,
    identity: dict[str, Any],
    table: ClassTable,
    fingerprint: str,
    layout: Layout,
    config: dict[str, Any],
) -> RunRecord:
    return RunRecord(
        run_id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}",
        identity=identity,
        classes=table.stored(),
        fingerprint=fingerprint,
        layout=layout,
        config=config,
        started=now(),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of what a run depends on.

    Our own is not looked up: `ray job submit --working-dir` brings the code without installing it.
    """
    versions = {"dinoidd": __version__, "python": platform.python_version()}
    return versions | {name: version(name) for name in _VERSIONS}


def write_record(output: Store, record: RunRecord) -> None:
    output.write_bytes(NAME, json.dumps(asdict(record), indent=1).encode())


def is_run(output: Store) -> bool:
    """Whether a run was begun here.

    Raises:
        OutputError: there is a run.json, but of something else.
    """
    if not output.exists(NAME):
        return False
    try:
        values = json.loads(output.read_bytes(NAME))
    except ValueError:
        values = None
    if not isinstance(values, dict) or not {"run_id", "layout"} <= set(values):
        raise OutputError(
            f"{output.uri_of(NAME)} is not a record of dinoidd: choose another --output"
        )
    return True


def read_record(output: Store) -> RunRecord | None:
    """The record of an output; None where no run was begun.

    Raises:
        OutputError: there is one that this version cannot read.
    """
    if not output.exists(NAME):
        return None
    try:
        values = json.loads(output.read_bytes(NAME))
        return RunRecord(**{**values, "layout": Layout(**values["layout"])})
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{output.uri_of(NAME)} is no record that this version can resume ({error}): "
            "choose another --output, or throw this one away with --restart"
        ) from error


def check_same(record: RunRecord, identity: dict[str, Any], output: Store) -> None:
    """Refuse to mix the rows of two different runs.

    Raises:
        OutputError: names each setting that differs.
    """
    different = differences(record.identity, identity)
    told = [what for what in different if not what.startswith("fingerprint")]
    different = told or different  # a digest follows from the others, and says nothing
    if different:
        raise OutputError(
            f"{output.uri} belongs to another run: {'; '.join(different)}. Use the same settings to "
            "resume it, another --output for a new run, or --restart to throw its results away"
        )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`image size was 256 and is 512`, for each name whose values are not equal."""
    pairs = [(name, old.get(name), new.get(name)) for name in sorted(set(old) | set(new))]
    return [f"{name} was {a!r} and is {b!r}" for name, a, b in pairs if a != b]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
