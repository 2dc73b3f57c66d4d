"""A job as it is asked for: one command line, and what Ray has to know beside it."""

import argparse
import getpass
import json
import re
import shlex
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from dinoidd import __version__
from dinoidd.errors import ConfigError
from dinoidd.storage.uri import scheme_of, shown
from dinoidd.submission.upload import Upload

JOBS = ("train", "segment", "evaluate")
# Options that name a place; of these the last two may be names instead.
_READ = ("input", "data", "checkpoint", "base", "predictions", "ground_truth", "images", "against")
_WRITTEN = ("output", "cache", "json", "report")
_NAMES_TOO = ("classes", "recipe")
_TOLD = ("input", "data", "predictions", "output")  # in the job's metadata
_SECRET = re.compile("SECRET|TOKEN|PASSWORD|KEY", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,98}")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the entry point holds while it runs, which only waits: nothing, so that it runs on a head
    without work on it."""

    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None  # bytes
    entrypoint_resources: dict[str, float] | None = None

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One job for a cluster."""

    job: str
    arguments: tuple[str, ...]
    name: str  # Ray's submission id
    upload: Upload
    metadata: dict[str, str] = field(default_factory=dict)
    env_vars: dict[str, str] = field(default_factory=dict)
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"--name {self.name}: letters, digits, dots, dashes and underscores, 99 at most"
            )
        for name in self.env_vars:
            if _SECRET.search(name):
                raise ConfigError(
                    f"--env {name}: everyone who sees the dashboard would see its value. Give the "
                    "nodes a role, or set it where Ray is started"
                )

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", f"jobs/{self.job}.py", *self.arguments])

    @property
    def runtime_env(self) -> dict[str, Any]:
        return self.upload.runtime_env | ({"env_vars": self.env_vars} if self.env_vars else {})

    def options(self) -> list[str]:
        """Of `ray job submit`."""
        words = ["--submission-id", self.name, "--metadata-json", json.dumps(self.metadata)]
        words += ["--runtime-env-json", json.dumps(self.runtime_env)]
        for name, value in self.resources.given().items():
            text = json.dumps(value) if isinstance(value, dict) else f"{value:g}"
            words += [f"--{name.replace('_', '-')}", text]
        return words


def described(job: str, parsed: argparse.Namespace) -> dict[str, str]:
    """The metadata that the dashboard shows of every job."""
    told = {"command": job, "user": _user(), "dinoidd": __version__}
    for name in _TOLD:
        if values := _values(parsed, name):
            told[name] = ", ".join(map(shown, values))[:500]
    return told


def new_name(job: str, parsed: argparse.Namespace) -> str:
    """`segment-drive-42-1124-0412-a1b2`: what, whose result, when, and never twice."""
    output = (_values(parsed, "output") or _values(parsed, "data") or [""])[0]
    last = re.sub(r"[^A-Za-z0-9-]+", "-", output.rstrip("/").rpartition("/")[2]).strip("-")[:40]
    words = [job, last, datetime.now(UTC).strftime("%m%d-%H%M"), uuid4().hex[:4]]
    return "-".join(filter(None, words))


def check_places(parsed: argparse.Namespace, upload: Upload) -> None:
    """Refuse paths of this machine, which a job elsewhere would look for in a folder of its own.

    Raises:
        ConfigError: names the option.
    """
    for name in (*_READ, *_WRITTEN, *_NAMES_TOO):
        for value in _values(parsed, name):
            relative = scheme_of(value) == "file" and not Path(value).expanduser().is_absolute()
            if not relative or (name in _NAMES_TOO and not Path(value).exists()):
                continue
            if name in _WRITTEN or not upload.holds(value):
                mend = "" if name in _WRITTEN else f", or send it along (--include {value})"
                raise ConfigError(
                    f"--{name.replace('_', '-')} {value}: a job has a folder of its own, on another "
                    "machine, that goes when it ends. Give s3://..., or the absolute path of a folder "
                    f"that all nodes see{mend}"
                )


def _values(parsed: argparse.Namespace, name: str) -> list[str]:
    value = getattr(parsed, name, None)
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str)]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        return "unknown"
