"""How a run waits for a store that is out: said, with growing pauses, up to a limit."""

import logging
from collections.abc import Callable, Iterator

import pytest
import ray
from conftest import S3
from flaky_store import FlakyStore, down, flaky_store, refused

from dinoidd.errors import OutageError, OutputError
from dinoidd.segment import outage
from dinoidd.segment.outage import Outage, check_output
from dinoidd.segment.pipeline import user_error
from dinoidd.storage import ObjectReader, StorageOptions, Store

DOWN = OutageError("unreachable", "s3://b/x cannot be read: the S3 service does not answer")
EXPIRED = OutageError("credentials", "s3://b/x cannot be read: the session token is expired")


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outage, "time", made)
    return made


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    monkeypatch.setattr(logging.getLogger("dinoidd"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


def failing(*errors: OutageError) -> Callable[[], None]:
    """A check that raises these, and then no more."""
    left = list(errors)

    def check() -> None:
        if left:
            raise left.pop(0)

    return check


def test_wait__returns_when_the_store_is_back(clock: Clock, log: Callable[[], list[str]]) -> None:
    Outage(600, failing(DOWN, DOWN, DOWN)).wait(DOWN)
    lows, highs = [2.5, 5, 10, 20], [5, 10, 20, 40]
    assert all(a <= n <= b for a, n, b in zip(lows, clock.naps, highs, strict=True)), clock.naps
    first, *still, last = log()
    assert first == f"{DOWN}. The run waits up to 10m00s (--outage-patience); what is done is kept"
    assert all(line.endswith(f": {DOWN}") and line.startswith("still out after ") for line in still)
    assert len(still) == 3
    assert last.startswith("the store answers again after ")


def test_wait__gives_up_with_a_sentence(clock: Clock) -> None:
    with pytest.raises(OutageError) as caught:
        Outage(600, failing(*[DOWN] * 99)).wait(DOWN)
    assert sum(clock.naps) == pytest.approx(600)
    assert max(clock.naps) <= 60
    assert str(caught.value) == (
        f"{DOWN}. The run waited 10m00s and ends; what is done is kept. When it is back, the same "
        "command goes on from there"
    )


def test_wait__counts_until_something_is_done(clock: Clock) -> None:
    waiting = Outage(100, failing())
    for _ in range(30):  # the check is fine, and the run fails again: patience ends all the same
        try:
            waiting.wait(DOWN)
        except OutageError:
            break
    assert sum(clock.naps) == pytest.approx(100)
    waiting.over()
    waiting.wait(DOWN)
    assert sum(clock.naps) > 100


def test_wait__credentials_of_the_environment_cannot_be_renewed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(OutageError, match="With valid credentials, the same command goes on"):
        Outage(600, failing(*[EXPIRED] * 99)).wait(EXPIRED)
    assert len(clock.naps) == 1
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    Outage(600, failing(EXPIRED, EXPIRED)).wait(EXPIRED)  # somebody signed in again
    assert len(clock.naps) == 4


@pytest.fixture
def flaky(s3: S3) -> Iterator[FlakyStore]:
    with flaky_store(s3.endpoint_url) as store:
        yield store


def test_check__output_and_input(s3: S3, flaky: FlakyStore) -> None:
    options = StorageOptions(endpoint_url=flaky.endpoint_url)
    output = Store.open(f"s3://{s3.new_bucket()}/out", options)
    reader = ObjectReader(options)
    check_output(output)
    reader.check_store(output.uri_of("no-such.png"))
    flaky.add(refused(403, "AccessDenied"))
    with pytest.raises(OutputError, match="access is denied"):
        check_output(output)
    reader.check_store(output.uri_of("no-such.png"))  # it says no, so it is there
    flaky.clear()
    flaky.add(down)
    for check in (lambda: check_output(output), lambda: reader.check_store(output.uri_of("x"))):
        with pytest.raises(OutageError, match="does not answer") as caught:
            check()
        assert caught.value.kind == "unreachable"
    reader.check_store("https://nowhere.invalid/x.png")  # a web host is no store of a run's


def test_user_error__knows_an_outage() -> None:
    text = "dinoidd.errors.StorageError: inner\n\ndinoidd.errors.OutageError: the store is away"
    found = user_error(ray.exceptions.RayError(text))
    assert (type(found), str(found)) == (OutageError, "the store is away")
    text = "dinoidd.errors.OutageError: away\n\ndinoidd.errors.StorageError: it is forbidden"
    assert type(user_error(ray.exceptions.RayError(text))) is not OutageError
