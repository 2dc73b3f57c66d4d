"""`dinoidd jobs`: train, segment and evaluate on a Ray cluster, from here."""

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from dinoidd.errors import ConfigError

if TYPE_CHECKING:
    from dinoidd.submission.job import Jobs
    from dinoidd.submission.request import Request

ACTIONS = {
    "submit": "send a job and its code to the cluster, and follow its log",
    "status": "the jobs of the cluster, or all about one",
    "logs": "what a job has said",
    "stop": "end a job; what is done is kept, and the same command resumes",
}
STOP_S = 30.0
EXAMPLES = """\
examples:
  dinoidd jobs submit segment --input s3://b/in/ --output s3://b/out --checkpoint s3://b/m.safetensors
  dinoidd jobs submit --no-wait --name drive-42 train --data s3://b/idd --recipe idd_20ep --output s3://b/t
  dinoidd jobs logs --follow drive-42

Every action prints the plain `ray job` command that it stands for.
exit status: the job's own (a job that failed is never 0); 130 for one that was stopped; 2 for an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    added = {}
    for name, summary in ACTIONS.items():
        action = added[name] = actions.add_parser(name, help=summary, description=summary)
        action.add_argument(
            "--address",
            metavar="URL",
            help="the dashboard of the cluster (RAY_ADDRESS, or http://127.0.0.1:8265)",
        )
    _add_submit(added["submit"])
    for name in ("status", "logs", "stop"):
        added[name].add_argument(
            "name", nargs="?" if name == "status" else None, help="as `submit` told it"
        )
    added["status"].add_argument("--json", action="store_true", help="print one JSON object")
    added["logs"].add_argument("--follow", action="store_true", help="until the job ends")


def _add_submit(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("job", choices=("train", "segment", "evaluate"), help="which of jobs/")
    add("arguments", nargs=argparse.REMAINDER, metavar="...", help="its options; see its --help")
    add("--name", metavar="NAME", help="Ray's submission id (made of job, output and time)")
    add("--no-wait", action="store_true", help="return when the job is accepted")
    add("--dry-run", action="store_true", help="print what would be sent, and stop")
    add("--working-dir", metavar="DIR", help="the repository, whose code is sent (this one)")
    add(
        "--include",
        metavar="PATH",
        action="append",
        default=[],
        help="a file below it that goes along, like a recipe or class table; may be repeated",
    )
    _pairs(
        parser, "--env", "environment variables of the job; no secrets, the dashboard shows them"
    )
    _pairs(parser, "--metadata", "for the dashboard, beside what is told anyway")
    entry = parser.add_argument_group("the entry point holds (nothing: it only waits)")
    entry.add_argument("--entrypoint-num-cpus", type=float, metavar="N", help="CPUs")
    entry.add_argument("--entrypoint-num-gpus", type=float, metavar="N", help="GPUs")
    entry.add_argument("--entrypoint-memory", type=int, metavar="BYTES", help="memory")
    _pairs(entry, "--entrypoint-resources", "resources of the cluster's own")


def _pairs(group: argparse._ActionsContainer, option: str, text: str) -> None:
    group.add_argument(
        option, metavar="NAME=VALUE", action="append", default=[], help=f"{text}; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    action: dict[str, Any] = {"submit": _submit, "status": _status, "logs": _logs, "stop": _stop}
    status: int = action[args.action](args)
    return status


def _submit(args: argparse.Namespace) -> int:
    from dinoidd.submission.text import plain_submit

    request = _request(args)
    files, size = request.upload.size()
    if args.dry_run:
        from dinoidd.submission.job import address_of

        _tell(plain_submit(address_of(args.address), request, follow=not args.no_wait))
        _say(f"would send {files} files, {size:,} bytes, of {request.upload.folder}")
        return 0
    jobs = _jobs(args)
    _tell(plain_submit(jobs.address, request, follow=not args.no_wait))
    name = jobs.submit(request)
    _say(f"sent {files} files, {size:,} bytes, of {request.upload.folder}")
    if args.no_wait:
        print(name)
        return 0
    _say(f"the job is called {name}; Ctrl-C leaves it running")
    return _follow(jobs, name)


def _request(args: argparse.Namespace) -> "Request":
    """Raises ConfigError; SystemExit where the job would not take its options."""
    from dinoidd.cli import build_parser
    from dinoidd.submission.request import Request, Resources, check_places, described, new_name
    from dinoidd.submission.upload import Upload

    words = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    parsed, unknown = build_parser([args.job]).parse_known_args([args.job, *words])
    if unknown:
        parsed.mistaken(f"unrecognized arguments: {' '.join(unknown)}")
    upload = Upload.of(args.working_dir, args.include, args.job)
    check_places(parsed, upload)
    custom = {name: _amount(name, text) for name, text in _dict(args, "entrypoint_resources")}
    name = args.name or new_name(args.job, parsed)
    return Request(
        job=args.job,
        arguments=tuple(words),
        name=name,
        upload=upload,
        metadata={"job_name": name} | described(args.job, parsed) | dict(_dict(args, "metadata")),
        env_vars=dict(_dict(args, "env")),
        resources=Resources(
            entrypoint_num_cpus=args.entrypoint_num_cpus,
            entrypoint_num_gpus=args.entrypoint_num_gpus,
            entrypoint_memory=args.entrypoint_memory,
            entrypoint_resources=custom or None,
        ),
    )


def _dict(args: argparse.Namespace, name: str) -> list[tuple[str, str]]:
    pairs = []
    for text in getattr(args, name):
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"--{name.replace('_', '-')} {text}: write NAME=VALUE")
        pairs.append((key, value))
    return pairs


def _amount(name: str, text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    raise ConfigError(f"--entrypoint-resources {name}={text}: the value is a number")


def _status(args: argparse.Namespace) -> int:
    from dinoidd.submission import text

    jobs = _jobs(args)
    if args.name is None:
        _tell(text.plain(jobs.address, "list"))
        found = jobs.all()
        if args.json:
            print(json.dumps([text.to_dict(job) for job in found], indent=2))
        else:
            print("\n".join(map(text.line, found)) or "no job was submitted yet")
        return 0
    _tell(text.plain(jobs.address, "status", args.name))
    job = jobs.details(args.name)
    print(json.dumps(text.to_dict(job), indent=2) if args.json else text.block(job))
    return _ended(job)


def _logs(args: argparse.Namespace) -> int:
    from dinoidd.submission.text import plain

    jobs = _jobs(args)
    _tell(plain(jobs.address, "logs", *(["--follow"] if args.follow else []), args.name))
    if args.follow:
        return _follow(jobs, args.name)
    sys.stdout.write(jobs.logs(args.name))
    return 0


def _stop(args: argparse.Namespace) -> int:
    from dinoidd.submission.text import block, plain

    jobs = _jobs(args)
    _tell(plain(jobs.address, "stop", args.name))
    if not jobs.stop(args.name):
        _say(f"{args.name} had ended before")
    print(block(jobs.wait(args.name, STOP_S)))
    return 0


def _follow(jobs: "Jobs", name: str) -> int:
    from dinoidd.submission.text import to_dict

    try:
        job = jobs.follow(name, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        _say(f"the job goes on: `dinoidd jobs logs --follow {name}`, `dinoidd jobs stop {name}`")
        raise
    values = to_dict(job)
    _say(f"{name}: {values['status']}. {values['message']}")
    return _ended(job)


def _ended(job: Any) -> int:
    from dinoidd.submission.job import exit_status

    return exit_status(job)


def _jobs(args: argparse.Namespace) -> "Jobs":
    from dinoidd.submission.job import Jobs

    return Jobs(args.address)


def _tell(command: str) -> None:
    """The plain command, on stderr, so that stdout is the answer alone."""
    _say(f"$ {command}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
