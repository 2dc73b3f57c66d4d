"""Counting what was begun and never ended, without Ray."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dinoidd.errors import ClusterError
from dinoidd.segment.hang import ends_within
from dinoidd.segment.tries import ALONE, FRUITLESS, LOADS, Tries, attempt, loading

HERE, THERE = "here", "there"


def killed(tries: Tries, image: int | None, *, host: str = HERE, hung: bool = False) -> None:
    """A process of `host` takes the chunk, and dies with that image in hand, or with none."""
    tries.begin("decoded", 0, host, hung)
    if image is not None:
        tries.touch("decoded", 0, image)


def test_tries__a_chunk_that_ended_is_begun_at_full_speed() -> None:
    tries = Tries()
    assert tries.begin("decoded", 0, HERE, False) == 0
    assert tries.begin("segmented", 0, HERE, False) == 0
    assert tries.begin("decoded", 1, HERE, False) == 0
    tries.end("decoded", 0)
    assert tries.begin("decoded", 0, HERE, False) == 0


def test_tries__after_a_death_one_image_at_a_time() -> None:
    tries = Tries()
    killed(tries, None)
    assert tries.begin("decoded", 0, HERE, False) == 1
    assert tries.touch("decoded", 0, 7) == {}


def test_tries__an_image_is_given_up_after_its_third_death() -> None:
    tries = Tries(image_timeout=300)
    killed(tries, None)
    for _ in range(ALONE):
        killed(tries, 7)
    killed(tries, 8)
    told = "the process ended each of 3 times that it was decoded by itself: for want of memory, or of a"
    assert tries.touch("decoded", 0, 7) == {
        "error_kind": "crashed",
        "error": f"{told} fault in native code",
    }
    assert tries.touch("decoded", 0, 8) == {}


def test_tries__an_image_that_ended_is_not_to_blame() -> None:
    """What comes after it may be killed as often as it likes."""
    tries = Tries()
    killed(tries, None)
    for _ in range(ALONE + 1):
        tries.begin("decoded", 0, HERE, False)
        assert tries.touch("decoded", 0, 7) == {}
        tries.touch("decoded", 0, None)


def test_tries__a_mark_makes_it_a_timeout() -> None:
    tries = Tries(image_timeout=2.5)
    killed(tries, None)
    killed(tries, 7)
    for _ in range(ALONE):
        killed(tries, 7, hung=True)
    assert tries.touch("decoded", 0, 7) == {
        "error_kind": "timeout",
        "error": "it was not decoded within 2.5 s, in 3 tries by itself: raise --image-timeout if it "
        "only takes long",
    }


def test_tries__on_another_host_the_time_it_took_tells() -> None:
    tries = Tries(image_timeout=0.02)
    killed(tries, None)
    for host in (HERE, THERE, HERE):
        killed(tries, 7, host=host)
        time.sleep(0.03)
    tries.begin("decoded", 0, THERE, False)
    assert tries.touch("decoded", 0, 7)["error_kind"] == "timeout"


def test_tries__a_late_return_on_the_same_host_is_a_crash() -> None:
    tries = Tries(image_timeout=0.02)
    killed(tries, None)
    for _ in range(ALONE):
        killed(tries, 7)
        time.sleep(0.03)
    tries.begin("decoded", 0, HERE, False)
    assert tries.touch("decoded", 0, 7)["error_kind"] == "crashed"


def test_tries__what_a_process_said_before_it_ended() -> None:
    tries = Tries()
    killed(tries, None)
    for _ in range(ALONE):
        killed(tries, 7)
        tries.blame("decoded", 0, "RuntimeError: CUDA error")
    tries.begin("decoded", 0, HERE, False)
    assert tries.touch("decoded", 0, 7)["error"].endswith("by itself: RuntimeError: CUDA error")


def test_attempt__an_exception_is_no_death() -> None:
    tries = Tries()
    with pytest.raises(KeyError), attempt(tries, "decoded", 0):
        raise KeyError("a lost manifest")
    with attempt(tries, "decoded", 0) as tried:
        assert not tried.alone


def test_attempt__a_process_that_is_told_to_go_has_not_ended_it() -> None:
    tries = Tries()
    with pytest.raises(SystemExit), attempt(tries, "decoded", 0):
        raise SystemExit(1)
    with attempt(tries, "decoded", 0) as tried:
        assert tried.alone


def test_attempt__deaths_without_an_image_end_the_run() -> None:
    tries = Tries()
    killed(tries, None)
    for _ in range(FRUITLESS):
        killed(tries, None)
    with pytest.raises(ClusterError) as caught, attempt(tries, "decoded", 0):
        pytest.fail("it was begun")
    told = (
        "a process died 5 times in a row with chunk 0 to be decoded, and none of its images was the"
    )
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_loading__that_never_ends_ends_the_run() -> None:
    tries = Tries()
    for _ in range(LOADS):
        tries.load()
    with pytest.raises(ClusterError) as caught, loading(tries):
        pytest.fail("it was begun")
    assert str(caught.value).startswith("loading the model ended its process 5 times in a row")
    assert "\n" not in str(caught.value)


def test_loading__counts_deaths_in_a_row() -> None:
    tries = Tries()
    for _ in range(3 * LOADS):
        tries.load()
        with loading(Tries()):
            pass
        tries.loaded()
    with loading(tries):
        pass


HANG = """
import re, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from dinoidd.segment.hang import ends_within

mark = Path(sys.argv[2]) if sys.argv[2] else None
hangs = {"sleep": lambda: time.sleep(60), "regex": lambda: re.match(r"(a+)+$", "a" * 64 + "b")}

def work(hang):
    with ends_within(0.5, mark):
        hang()

if mark is None:  # beside work that goes on for a while
    pool = ThreadPoolExecutor(2)
    for hang in [hangs[sys.argv[1]], *[lambda: time.sleep(0.01)] * 20]:
        pool.submit(work, hang)
else:
    work(hangs[sys.argv[1]])
"""


@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.parametrize("kind", ["sleep", "regex"])
def test_ends_within__ends_what_nobody_can_interrupt(
    kind: str, by_itself: bool, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    command = [sys.executable, "-c", HANG, kind, str(mark) if by_itself else ""]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 1
    told = mark.read_text() if by_itself else ended.stderr
    assert told.startswith("Timeout (0:00:00.500000)!")
    assert "in work" in told


def test_ends_within__leaves_nothing_behind(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for limit, where in ((0.3, mark), (0.3, None), (None, mark), (None, None)):
        with ends_within(limit, where):
            assert mark.exists() == (limit is not None and where is not None)
    time.sleep(0.5)  # or this process would have ended
    assert not mark.exists()
