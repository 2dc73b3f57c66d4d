"""Jobs on a cluster, by Ray's JobSubmissionClient: sent, followed, stopped, over HTTP."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import ray
import ray.exceptions
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from dinoidd.errors import ClusterError, ConfigError
from dinoidd.submission.request import Request

DEFAULT = "http://127.0.0.1:8265"
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # both win over what Ray's client is given
_ALL_FILES = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"  # what is named goes up, also where git ignores it
_TALKATIVE = (
    *("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk"),
    *("_private.runtime_env.packaging", "_private.runtime_env.working_dir"),
)
_ANSWER_S = 10.0
_POLL_S = 0.5
_INTERRUPTED = 130


class Jobs:
    """The jobs of one cluster.

    Methods raise ClusterError: the cluster does not answer, asks for a token, or has no such job.
    """

    def __init__(self, address: str | None = None) -> None:
        """Args: address: of the dashboard; None: RAY_ADDRESS, or the one on this machine."""
        self.address = address_of(address)
        for name in _TALKATIVE:  # of packages, addresses and web sockets
            logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
        with self._told():
            _knock(self.address)
            with _environment(RAY_ADDRESS=self.address, RAY_API_SERVER_ADDRESS=None):
                self._client = JobSubmissionClient(self.address)

    def submit(self, request: Request) -> str:
        """Send a job, and the code that it runs; returns its name."""
        with self._told(), _environment(**{_ALL_FILES: "1"}):
            try:
                return self._client.submit_job(
                    entrypoint=request.entrypoint,
                    submission_id=request.name,
                    runtime_env=request.runtime_env,
                    metadata=dict(request.metadata),
                    **request.resources.given(),
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise ConfigError(
                        f"there is a job '{request.name}' already: choose another --name (a run is "
                        "resumed by its --output, whatever the job is called)"
                    ) from error
                raise

    def details(self, name: str) -> JobDetails:
        with self._told(name):
            return self._client.get_job_info(name)

    def all(self) -> list[JobDetails]:
        """Of those that were submitted, the newest first."""
        with self._told():
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)

    def logs(self, name: str) -> str:
        with self._told(name):
            return self._client.get_job_logs(name)

    def follow(self, name: str, show: Callable[[str], object]) -> JobDetails:
        """Hand on the job's log as it grows, until the job ends."""
        self.details(name)
        with self._told(name):
            asyncio.run(_each(self._client.tail_job_logs(name), show))
        return self.wait(name)

    def wait(self, name: str, seconds: float = float("inf")) -> JobDetails:
        """Until a job has ended, or that long."""
        until = time.monotonic() + seconds
        while not (job := self.details(name)).status.is_terminal() and time.monotonic() < until:
            time.sleep(_POLL_S)
        return job

    def stop(self, name: str) -> bool:
        """Ask a job to end: SIGTERM, 3 s later SIGKILL. False where it had ended before."""
        with self._told(name):
            return self._client.stop_job(name)

    @contextmanager
    def _told(self, name: str | None = None) -> Iterator[None]:
        try:
            yield
        except ray.exceptions.AuthenticationError as error:
            raise ClusterError(_about_token(self.address, str(error))) from error
        except OSError as error:
            raise ClusterError(
                f"no Ray head answers at {self.address} ({error}): give --address or RAY_ADDRESS, "
                "open the tunnel to it (`ray dashboard`, `kubectl port-forward`), or start one "
                "(`ray start --head`)"
            ) from error
        except (RuntimeError, ValueError) as error:
            if name is not None and ("404" in str(error) or "does not exist" in str(error)):
                raise ClusterError(self._no_such(name)) from error
            raise ClusterError(f"{self.address}: {str(error).strip()}") from error

    def _no_such(self, name: str) -> str:
        names = [job.submission_id for job in self.all()[:5]]
        there = f"its newest are {', '.join(names)}" if names else "it has none"
        return f"there is no job '{name}' on {self.address}: {there}"


def address_of(address: str | None) -> str:
    """Of the dashboard that is meant: as given, as the environment says, or on this machine."""
    named = [address, *(os.environ.get(name) for name in _VARIABLES)]
    return (next(filter(None, named), None) or DEFAULT).rstrip("/")


def exit_status(job: JobDetails) -> int:
    """What a shell should be told: the driver's own status, where Ray knows it."""
    if job.status == JobStatus.FAILED:
        code = job.driver_exit_code
        return code if code is not None and 0 < code < 256 else 1
    return _INTERRUPTED if job.status == JobStatus.STOPPED else 0


async def _each(lines: AsyncIterator[str], show: Callable[[str], object]) -> None:
    async for text in lines:
        show(text)


def _knock(address: str) -> None:
    """Fail at once where nobody listens. Raises OSError."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), _ANSWER_S).close()


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """These variables for the length of the block; None is one that is not set."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            with suppress(KeyError):
                del os.environ[name]
        else:
            os.environ[name] = value


def _about_token(address: str, told: str) -> str:
    """One sentence for Ray's twenty lines."""
    what = "403: this shell's token is not the cluster's"
    if "Missing" in told or "required" in told.splitlines()[0]:
        what = "401: it asks for a token, and this shell sent none"
    return (
        f"{address} lets nobody in without the cluster's token ({what}): export RAY_AUTH_MODE=token, "
        "and put the token into ~/.ray/auth_token or RAY_AUTH_TOKEN"
    )
