"""Jobs as lines of text."""

import shlex
from datetime import UTC, datetime
from typing import Any

from dinoidd.log import duration
from dinoidd.submission.request import Request

_OWN_NAMES = (
    "job_submission_id",
    "job_name",
)  # the job's name again, for Ray and for its dashboard
JobDetails = Any  # of ray.job_submission; Ray itself is imported only where jobs are sent


def plain(address: str, *words: str) -> str:
    """The command of Ray that does the same, to be pasted anywhere."""
    return f"RAY_ADDRESS={shlex.quote(address)} {shlex.join(['ray', 'job', *words])}"


def plain_submit(address: str, request: Request, *, follow: bool) -> str:
    words = ["submit", *([] if follow else ["--no-wait"]), *request.options()]
    every = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1 " if request.upload.include else ""
    return f"{every}{plain(address, *words)} -- {request.entrypoint}"


def line(job: JobDetails) -> str:
    """One job of a list."""
    values = to_dict(job)
    since = values["started"] or "-"
    return f"{values['name']:<44} {values['status']:<10} {since:<20} {_time(job)}"


def block(job: JobDetails) -> str:
    """All about one job."""
    values = to_dict(job)
    lines = [("job", values["name"]), ("status", f"{values['status']}, {_time(job)}")]
    lines += [("message", values["message"]), ("entry", values["entrypoint"])]
    lines += [("started", values["started"]), ("ended", values["ended"])]
    lines += sorted(values["metadata"].items())
    return "\n".join(f"{name:<12} {value}" for name, value in lines if value)


def to_dict(job: JobDetails) -> dict[str, Any]:
    """Plain values, times in UTC."""
    return {
        "name": job.submission_id,
        "status": job.status.value,
        "message": (job.message or "").split(", last available logs")[0].strip(),
        "driver_exit_code": job.driver_exit_code,
        "entrypoint": job.entrypoint,
        "started": _when(job.start_time),
        "ended": _when(job.end_time),
        "metadata": {k: v for k, v in (job.metadata or {}).items() if k not in _OWN_NAMES},
    }


def _when(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _time(job: JobDetails) -> str:
    if not job.start_time:
        return "waiting"
    end = job.end_time / 1000 if job.end_time else datetime.now(UTC).timestamp()
    return duration(max(0.0, end - job.start_time / 1000))
