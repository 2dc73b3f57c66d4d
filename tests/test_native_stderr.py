"""Lines that native code writes to stderr."""

import os
import subprocess
import sys

import pytest

from dinoidd.segment.native_stderr import without_lines


def test_without_lines__leaves_out_those_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines("Set ray log level"):
        os.write(2, b"[I] logging.cc: Set ray log level to 3\nno space left\n")
    os.write(2, b"Set ray log level: later\n")
    assert capfd.readouterr().err == "no space left\nSet ray log level: later\n"


def test_without_lines__shows_the_others_when_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with without_lines("unwanted"):
            os.write(2, b"why\n")
            raise RuntimeError("no head")

    with pytest.raises(RuntimeError, match="no head"):
        fail()
    assert capfd.readouterr().err == "why\n"


@pytest.mark.timeout(120)
def test_connect__says_one_line() -> None:
    program = (
        "from dinoidd.log import start_logging; start_logging()\n"
        "from dinoidd.segment.cluster import connect; connect()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stderr.splitlines()
    assert len(said) == 1, said
    assert said[0].partition(" ")[2].startswith("started an embedded Ray on this machine")
