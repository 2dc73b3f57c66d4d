"""The README's Python examples run, and its commands name options that exist."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from synthetic_output import SyntheticOutput

from dinoidd.cli import build_parser, main

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [
    re.sub(r"python jobs/(\w+).py", r"dinoidd \1", line).split("-- ")[-1].split(" # ")[0]
    for line in SHELL.splitlines()
    if "dinoidd " in line or "python jobs/" in line
]


@pytest.mark.parametrize("example", PYTHON, ids=lambda code: code.split()[1])
def test_python_example__runs_on_a_run(example: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    SyntheticOutput(tmp_path / "demo", errors={3: ("empty", "the file has no bytes")})
    scene = tmp_path / "demo" / "scenes" / "leftImg8bit" / "val" / "001" / "a_leftImg8bit.jpg"
    scene.parent.mkdir(parents=True)
    Image.new("RGB", (64, 48), "gray").save(scene)

    if "model.pt2" in example:
        export = "model export --preset tiny --image-size 192 --output demo/model.pt2"
        assert main(export.split()) == 0

    exec(compile(example, "README.md", "exec"), {})

    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_command__is_understood(command: str) -> None:
    arguments = shlex.split(command)[1:]

    parsed = build_parser(arguments).parse_args(arguments)

    assert parsed.command == arguments[0]


def test_readme__is_finished() -> None:
    assert "@@" not in README


def test_readme__has_every_library_and_the_main_commands() -> None:
    libraries = {re.search(r"import (\w+)|from (\w+)", code).group() for code in PYTHON}
    words = {word.split()[-1] for word in libraries}

    assert words >= {"duckdb", "pandas", "polars", "io", "datasets"}
    assert {shlex.split(c)[1] for c in COMMANDS} >= {
        *("data", "segment", "verify", "query", "show", "convert", "parity"),
        *("train", "sweep", "plan", "evaluate", "predict"),
    }
