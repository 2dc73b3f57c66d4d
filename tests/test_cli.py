"""The command line as a whole: one screen of help, shared names, one-line errors."""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dinoidd import __version__
from dinoidd.cli import COMMANDS, PIPE_CLOSED, build_parser, main
from dinoidd.errors import (
    CheckpointError,
    ClassTableError,
    ClusterError,
    ConfigError,
    DinoiddError,
    ImageError,
    InputError,
    OutputError,
    StorageError,
)

# The one name of what several commands have, and what it must not be called.
SHARED = {
    "--endpoint-url": ("endpoint", "s3-endpoint", "s3-url"),
    "--input": ("inputs", "in", "source", "src", "input-uri"),
    "--output": ("outputs", "output-dir", "dest", "output-uri", "to-folder"),
    "--seed": ("random-seed", "rng", "seeds"),
    "--json": ("as-json", "json-output"),
    "--preset": ("model", "config", "arch"),
    "--checkpoint": ("ckpt", "weights", "checkpoint-path"),
    "--classes": ("class-table", "labels", "class-names"),
    "--image-size": ("size", "img-size", "input-size"),
    "--batch-size": ("batch", "bs"),
    "--dtype": ("precision", "type"),
    "--device": ("gpu", "cuda"),
    "--restart": (
        "force",
        "redo",
    ),  # `data labels --overwrite` is another thing: it takes others' files
}
VARIED = {"--json": "evaluate writes a FILE", "--image-size": "generated scenes are no squares"}


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is wrapped for 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser, or those of its actions: `data generate`, `bench pipeline`."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from leaves(child)


def parsers(command: str) -> list[argparse.ArgumentParser]:
    """A command's parsers, with all their options."""
    (group,) = (
        a for a in build_parser([command])._actions if isinstance(a, argparse._SubParsersAction)
    )
    return list(leaves(group.choices[command]))


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {
        name: action
        for action in parser._actions
        for name in action.option_strings
        if name not in ("-h", "--help")
    }


def test_help__every_command_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    for command, summary in COMMANDS.items():
        assert any(line.split() == [command, *summary.split()] for line in lines)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"dinoidd {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_command__help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"dinoidd.cli.{command}")
    assert module.__doc__
    assert callable(module.add_arguments)
    assert callable(module.run)
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: dinoidd {command}")
    assert len(out.splitlines()) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_command__every_option_is_explained(command: str) -> None:
    for parser in parsers(command):
        for name, action in options(parser).items():
            assert name.startswith("--"), name
            assert name == name.lower().replace("_", "-"), name
            assert action.help or action.choices, f"{parser.prog} {name} has no help"


@pytest.mark.parametrize("command", COMMANDS)
def test_command__shared_options_have_one_name(command: str) -> None:
    for parser in parsers(command):
        names = set(options(parser))
        for name, others in SHARED.items():
            wrong = names & {f"--{other}" for other in others}
            assert not wrong, f"{parser.prog}: {wrong} is called {name} elsewhere"


def test_commands__shared_options_mean_the_same() -> None:
    kinds: dict[str, set[tuple[str, object, object]]] = {}
    for command in COMMANDS:
        for parser in parsers(command):
            for name, action in options(parser).items():
                if name in SHARED and name not in VARIED:
                    kind = (type(action).__name__, action.nargs, action.dest)
                    kinds.setdefault(name, set()).add(kind)
    assert len(kinds) >= 10
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}


@pytest.mark.parametrize("arguments", [[], ["segmnt"], ["model"], ["model", "tiny", "--wrong"]])
def test_main__wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: dinoidd" in captured.err


def stand_in(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> None:
    """Make `dinoidd model` end so."""

    def run(args: argparse.Namespace) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "dinoidd.cli.model", module)


@pytest.mark.parametrize(
    "error",
    [
        DinoiddError("a sentence"),
        ConfigError("a sentence"),
        ClassTableError("a sentence"),
        CheckpointError("a sentence"),
        InputError("a sentence"),
        OutputError("a sentence"),
        ClusterError("a sentence"),
        StorageError("missing", "a sentence"),
        ImageError("empty", "a sentence"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_main__user_error_is_one_line_and_exit_2(
    error: DinoiddError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, error)
    assert main(["model"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "dinoidd model: a sentence\n")


@pytest.mark.parametrize("status", [0, 1])
def test_main__exit_status_is_the_commands(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, status)
    assert main(["model"]) == status


def test_main__interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, KeyboardInterrupt())
    assert main(["model"]) == 130
    assert capsys.readouterr().err == "dinoidd model: interrupted\n"


def test_main__bug_is_a_traceback_and_exit_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not 1, which says that a run ended with too many error rows."""
    stand_in(monkeypatch, ZeroDivisionError("a bug"))
    assert main(["model"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        "ZeroDivisionError: a bug",
        "dinoidd model: ended by an unexpected ZeroDivisionError, told above: a bug, or the end of "
        "something beneath it, like a Ray cluster that is gone",
    ]


def test_module__runs_and_ends_quietly_on_a_closed_pipe() -> None:
    command = [sys.executable, "-m", "dinoidd", "model", "tiny", "--classes", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("dinoidd model: unknown class table 'nothing'")
    assert len(result.stderr.splitlines()) == 1
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dinoidd", "model", "tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == PIPE_CLOSED  # as a shell shows it: not 0, which is for success
