"""`dinoidd jobs`: what would be sent, and what is refused before anything is."""

import json
import shlex
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from cluster_files import ROOT

from dinoidd.cli import main
from dinoidd.errors import ConfigError
from dinoidd.submission.request import Request, Resources
from dinoidd.submission.upload import LARGEST, Upload

BUCKETS = ["--preset", "tiny", "--input", "s3://b/in", "--output", "s3://b/out"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with things lying about in it that nobody wants on a cluster."""
    for name in ("dinoidd/a.py", "dinoidd/deep/b.py", "dinoidd/__pycache__/a.pyc", "jobs/train.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n")
    shutil.copy(ROOT / "jobs/segment.py", tmp_path / "jobs")
    litter = (
        ".git/x",
        ".venv/x",
        ".hidden",
        "demo/street.jpg",
        "model.safetensors",
        "demo/m/r.toml",
    )
    for name in (*litter, "notes/mine.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 1000)
    (tmp_path / ".gitignore").write_text("demo/\nb.py\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packed(upload: Upload, target: Path) -> set[str]:
    """What Ray packs of it."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(upload.folder), target, include_gitignore=False, excludes=upload.excludes)
    with zipfile.ZipFile(target) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


@pytest.mark.parametrize("include", [[], ["notes"], ["demo/m/r.toml", "model.safetensors"]])
def test_upload__is_the_code_and_what_is_named(include: list[str], checkout: Path) -> None:
    upload = Upload.of(None, include, "segment")
    code = {"dinoidd/a.py", "dinoidd/deep/b.py", "jobs/segment.py", "jobs/train.py"}
    named = {"notes/mine.toml" if name == "notes" else name for name in include}
    assert packed(upload, checkout / ".package.zip") == code | named
    assert {p.relative_to(checkout).as_posix() for p in upload.files()} == code | named
    assert upload.size() == (4 + len(named), sum(p.stat().st_size for p in upload.files()))


def test_upload__of_this_repository_is_small(tmp_path: Path) -> None:
    upload = Upload.of(str(ROOT), [], "segment")
    there = packed(upload, tmp_path / "package.zip")
    assert {name.split("/")[0] for name in there} == {"dinoidd", "jobs"}
    files, size = upload.size()
    assert files == len(there)
    assert size < 3_000_000
    assert (tmp_path / "package.zip").stat().st_size < 3_000_000


def test_upload__too_large(checkout: Path) -> None:
    with (checkout / "model.safetensors").open("wb") as file:
        file.truncate(LARGEST)
    with pytest.raises(ConfigError, match="more than 100,000,000: put large files into the bucket"):
        Upload.of(None, ["model.safetensors"], "segment").size()


@pytest.mark.parametrize("path", ["../other", ".", "nothing.toml"])
def test_upload__refuses_what_is_not_below(path: str, checkout: Path) -> None:
    with pytest.raises(ConfigError, match=f"--include {path}: "):
        Upload.of(None, [path], "segment")


def test_upload__no_repository(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no jobs/segment.py in .*: give the root of"):
        Upload.of(str(tmp_path), [], "segment")


def request(**more: object) -> Request:
    upload = Upload(folder=ROOT)
    values = {"job": "segment", "arguments": ("--input", "a b"), "name": "x", "upload": upload}
    return Request(**(values | more))  # type: ignore[arg-type]


def test_request__is_told_to_ray_whole() -> None:
    resources = Resources(entrypoint_num_cpus=0.5, entrypoint_resources={"head": 1.0})
    one = request(metadata={"a": "b"}, env_vars={"C": "d"}, resources=resources)
    assert one.entrypoint == "python jobs/segment.py --input 'a b'"
    words = one.options()
    said = dict(zip(words[::2], words[1::2], strict=True))
    assert json.loads(said.pop("--runtime-env-json")) == one.runtime_env
    assert one.runtime_env["env_vars"] == {"C": "d"}
    assert said == {
        "--submission-id": "x",
        "--metadata-json": '{"a": "b"}',
        "--entrypoint-num-cpus": "0.5",
        "--entrypoint-resources": '{"head": 1.0}',
    }


def test_request__no_secret_for_everyone_to_see() -> None:
    with pytest.raises(ConfigError, match="--env AWS_SECRET_ACCESS_KEY: everyone who sees the"):
        request(env_vars={"AWS_SECRET_ACCESS_KEY": "x"})


def test_request__name_that_ray_would_not_take() -> None:
    with pytest.raises(ConfigError, match="--name a/b: letters, digits"):
        request(name="a/b")


def test_submit__dry_run_prints_the_plain_command(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--address", "http://h:1", "--dry-run", "--metadata", "drive=42"]
    status = main(["jobs", "submit", *options, "segment", *BUCKETS])
    said = capsys.readouterr()
    command, sent = said.err.splitlines()
    assert (status, said.out) == (0, "")
    assert sent.startswith("would send 4 files, ")
    words = shlex.split(command)
    assert words[:4] == ["$", "RAY_ADDRESS=http://h:1", "ray", "job"]
    assert words[words.index("--") :] == ["--", "python", "jobs/segment.py", *BUCKETS]
    assert words[words.index("--submission-id") + 1].startswith("segment-out-")
    metadata = json.loads(words[words.index("--metadata-json") + 1])
    assert metadata["job_name"] == words[words.index("--submission-id") + 1]
    assert {k: metadata[k] for k in ("command", "input", "output", "drive")} == {
        "command": "segment",
        "input": "s3://b/in",
        "output": "s3://b/out",
        "drive": "42",
    }


@pytest.mark.parametrize(
    ("job", "words", "said"),
    [
        (
            "segment",
            [*BUCKETS[:2], "--input", "in", *BUCKETS[4:]],
            "--input in: a job has a folder",
        ),
        (
            "segment",
            [*BUCKETS[:4], "--output", "out"],
            "--output out: a job has a folder of its own",
        ),
        (
            "segment",
            [*BUCKETS, "--classes", "notes/mine.toml"],
            "or send it along (--include notes/",
        ),
        ("train", ["--recipe", "notes/mine.toml"], "--recipe notes/mine.toml: a job has a folder"),
    ],
)
def test_submit__refuses_paths_that_only_this_machine_has(
    job: str, words: list[str], said: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "submit", "--dry-run", job, *words]) == 2
    assert said in capsys.readouterr().err


def test_submit__takes_paths_that_go_along(checkout: Path) -> None:
    include = ["--include", "notes/mine.toml"]
    words = ["--recipe", "notes/mine.toml", "--data", "/shared/idd", "--classes", "idd"]
    assert main(["jobs", "submit", "--dry-run", *include, "train", *words]) == 0


def test_submit__wrong_option_is_told_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "submit", "--dry-run", "segment", *BUCKETS, "--batchsize", "4"])
    assert ended.value.code == 2
    assert (
        "dinoidd segment: error: unrecognized arguments: --batchsize 4" in capsys.readouterr().err
    )


@pytest.mark.parametrize("pair", ["--env=A", "--metadata==b", "--entrypoint-resources=a=many"])
def test_submit__pair_that_is_none(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "submit", "--dry-run", pair, "segment", *BUCKETS]) == 2
    assert capsys.readouterr().err.startswith(f"dinoidd jobs: {pair.replace('=', ' ', 1)}: ")


def test_jobs__no_head(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main(["jobs", "status"]) == 2
    assert capsys.readouterr().err == (
        f"dinoidd jobs: no Ray head answers at {address} ([Errno 111] Connection refused): give "
        "--address or RAY_ADDRESS, open the tunnel to it (`ray dashboard`, `kubectl port-forward`), "
        "or start one (`ray start --head`)\n"
    )
