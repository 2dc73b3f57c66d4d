"""Whole jobs on a store that fails: every image has its row, or the run ends with all it did kept."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import S3
from flaky_store import (
    Act,
    FlakyStore,
    down,
    down_for,
    first_calls,
    flaky_store,
    refused,
    reset,
    reset_in_body,
    throttled,
)
from images import write_plain
from segment_runs import proof, rows_of

pytestmark = pytest.mark.timeout(600)
IMAGES = 48


@dataclass(frozen=True)
class Job:
    """48 small images in a bucket, segmented through a proxy; in chunks of 4 and files of 16."""

    s3: S3
    flaky: FlakyStore
    bucket: str

    @property
    def output(self) -> str:
        return f"s3://{self.bucket}/out"

    def run(self, *more: object) -> subprocess.CompletedProcess[str]:
        """The command, in a process with a Ray of its own."""
        where = ["--input", f"s3://{self.bucket}/in", "--output", self.output]
        size = ["--batch-size", "4", "--rows-per-chunk", "4", "--rows-per-file", "16"]
        through = ["--preset", "tiny", "--endpoint-url", self.flaky.endpoint_url]
        return subprocess.run(
            [sys.executable, "-m", "dinoidd", "segment", *where, *size, *through, *map(str, more)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
        )

    def when_images_were_read(self, act: Act, images: int = 16) -> None:
        """From then on every request of any kind is treated like that."""
        begin = first_calls(lambda: self.flaky.add(act) and None)
        self.flaky.add(begin, method="GET", holds="/in/0", after=images, times=1)

    def reads(self) -> Counter[str]:
        """How often each image was asked for."""
        targets = [t.split("?")[0] for method, t in self.flaky.requests if method == "GET"]
        return Counter(t.rpartition("/")[2] for t in targets if "/in/0" in t)

    def check_reads(self, ran: subprocess.CompletedProcess[str], before: Counter[str]) -> None:
        """A session that went on asked for every image that was not done once, and for no other."""
        told = re.search(rf"resuming: (\d+) of {IMAGES} images are done", ran.stderr)
        assert told, ran.stderr
        again = self.reads() - before
        assert 0 < int(told[1]) < IMAGES
        assert (set(again.values()), len(again)) == ({1}, IMAGES - int(told[1]))

    def check(self) -> None:
        """Every image has its row, and all are ok."""
        report = proof(self.output, self.s3.options)
        assert (report.images, report.rows, report.ok) == (IMAGES, IMAGES, IMAGES)
        assert [row["image_id"] for row in rows_of(self.output, self.s3.options)] == [
            *range(IMAGES)
        ]


@pytest.fixture
def job(s3: S3, tmp_path: Path) -> Iterator[Job]:
    bucket = s3.new_bucket()
    for path in sorted(write_plain(tmp_path / "in", IMAGES).iterdir()):
        s3.client().put_object(Bucket=bucket, Key=f"in/{path.name}", Body=path.read_bytes())
    with flaky_store(s3.endpoint_url) as flaky:
        yield Job(s3, flaky, bucket)


def said(ran: subprocess.CompletedProcess[str]) -> str:
    """The sentence that a command ends with."""
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr.splitlines()[-1]


def test_segment__throttled_and_reset(job: Job) -> None:
    rules = [
        job.flaky.add(throttled, method="GET", holds="/in/0", times=30),
        job.flaky.add(reset, method="GET", holds="/in/0", times=10),
        job.flaky.add(reset_in_body, method="GET", holds="/in/0", times=10),
        job.flaky.add(throttled, method="PUT", holds="/_staging/", times=6),
        job.flaky.add(reset, method="PUT", holds="/images/", times=2),
    ]
    ran = job.run()
    assert ran.returncode == 0, ran.stderr
    assert [rule.hits for rule in rules] == [30, 10, 10, 6, 2]
    job.check()


@pytest.mark.slow
def test_segment__token_expires(job: Job) -> None:
    job.when_images_were_read(refused(400, "ExpiredToken"))
    sentence = said(job.run())
    assert "the session token is expired or invalid: sign in again" in sentence
    assert "what is done is kept. With valid credentials, the same command goes on" in sentence
    job.flaky.clear()
    before = job.reads()
    ran = job.run()
    assert ran.returncode == 0, ran.stderr
    job.check()
    job.check_reads(ran, before)


@pytest.mark.slow
def test_segment__store_is_down_for_a_while(job: Job) -> None:
    job.when_images_were_read(down_for(60))
    ran = job.run()
    assert ran.returncode == 0, ran.stderr
    assert "does not answer" in ran.stderr
    assert "The run waits up to 10m00s (--outage-patience); what is done is kept" in ran.stderr
    assert "the store answers again after" in ran.stderr
    job.check()


@pytest.mark.slow
def test_segment__store_is_down_for_too_long(job: Job) -> None:
    job.when_images_were_read(down)
    sentence = said(job.run("--outage-patience", 15))
    assert "does not answer" in sentence
    assert "what is done is kept. When it is back, the same command goes on" in sentence
    job.flaky.clear()
    before = job.reads()
    ran = job.run()
    assert ran.returncode == 0, ran.stderr
    job.check()
    job.check_reads(ran, before)
