"""One session of work on an output at a time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import S3
from flaky_store import Act, FlakyStore, Handler, body_of, down, flaky_store
from images import write_plain
from segment_runs import forbid_work, segment

from dinoidd.data.manifest import FOLDER as MANIFEST
from dinoidd.data.manifest import index_images
from dinoidd.errors import OutputError
from dinoidd.log import logger
from dinoidd.output.reader import RunReader
from dinoidd.segment import file_system, heartbeat, job, lock
from dinoidd.segment.file_system import is_of_one_machine, kind_of
from dinoidd.segment.heartbeat import FOLDER, Heartbeat
from dinoidd.segment.holder import Holder
from dinoidd.segment.lock import NAME, exclusive
from dinoidd.segment.preparation import check_ownership
from dinoidd.storage import StorageOptions, Store

HOLD = """
import sys, time
from dinoidd.segment import heartbeat
from dinoidd.segment.lock import exclusive
from dinoidd.storage import StorageOptions, Store

heartbeat.SETTLE_S, heartbeat.BEAT_S = 0.1, 0.2
output = Store.open(sys.argv[1], StorageOptions(endpoint_url=sys.argv[2] or None))
with exclusive(output, "segment"):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a twentieth of the time."""
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.2)
    monkeypatch.setattr(heartbeat, "WATCH_S", 1.5)
    monkeypatch.setattr(heartbeat, "POLL_S", 0.1)
    monkeypatch.setattr(heartbeat, "SETTLE_S", 0.3)


@contextlib.contextmanager
def held_elsewhere(output: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, output.uri, output.options.endpoint_url or ""],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def bucket(s3: S3) -> Store:
    return Store.open(f"s3://{s3.new_bucket()}/out", s3.options)


def leave(output: Store, **changes: object) -> Holder:
    """A session's file, as of another machine that never ended it."""
    other = Holder(
        **Holder.me("segment").to_dict() | {"host": "elsewhere", "pid": 7, "machine": "another"}
    )
    state = {"holds": True, "beats": 3, "replaces": []} | changes
    text = json.dumps(other.to_dict() | state)
    output.child(FOLDER).write_bytes(f"{other.id}.json", text.encode())
    return other


def sessions(output: Store) -> list[str]:
    return output.child(FOLDER).names()


def test_exclusive__goes_without_a_trace(store: Store) -> None:
    for _ in range(2):
        with exclusive(store, "segment") as held:
            held.check()
            held.check(now=False)
            assert [e.uri for e in store.walk()]
        assert [e.uri for e in store.walk()] == []


def test_exclusive__the_second_is_told_who_works(store: Store) -> None:
    with (
        held_elsewhere(store) as process,
        pytest.raises(OutputError) as caught,
        exclusive(store, "retry"),
    ):
        pytest.fail("both hold it")
    told = str(caught.value)
    assert told.startswith(
        f"another session works on {store.uri}: `dinoidd segment` on {socket.gethostname()}, "
        f"process {process.pid}, since 20"
    )
    assert told.endswith(" UTC. Wait for its end, stop it, or choose another --output")


def test_exclusive__after_a_kill_at_once(store: Store) -> None:
    with held_elsewhere(store) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    began = time.monotonic()
    with exclusive(store, "segment") as held:
        assert time.monotonic() - began < 1.2, (
            "it watched, although the process is known to be dead"
        )
        held.check()
    assert sessions(store) == []


def test_exclusive__one_of_threads_that_come_together(store: Store) -> None:
    inside, refused, most = [], [], 0
    together = threading.Barrier(4)

    def come() -> None:
        nonlocal most
        together.wait()
        try:
            with exclusive(store, "segment"):
                inside.append(1)
                most = max(most, len(inside))
                time.sleep(1.0)
                inside.pop()
        except OutputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(refused)) == (1, 3), refused


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_file_lock__lost_while_it_works(tmp_path: Path, what: str) -> None:
    output = Store.open(str(tmp_path / "out"))
    with exclusive(output, "segment") as held:
        held.check()
        (tmp_path / "out" / NAME).unlink()
        if what == "replaced":
            (tmp_path / "out" / NAME).write_text("{}")
        with pytest.raises(OutputError, match="_session was removed or replaced while"):
            held.check()
    assert (tmp_path / "out" / NAME).exists() == (what == "replaced"), "not ours to remove"


def test_file_lock__a_holder_that_has_said_nothing_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_TRIES", 2)
    output = Store.open(str(tmp_path))
    with exclusive(output, "segment"):
        (tmp_path / NAME).write_text("")
        with pytest.raises(OutputError, match=f"{tmp_path}: it has just begun. Wait for its end"):
            lock._acquired(output, Holder.me("segment"))


@pytest.mark.parametrize("alone", [True, False])
def test_file_lock__a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    monkeypatch.setattr(lock, "is_of_one_machine", lambda folder: alone)
    begun: list[str] = []
    write = Heartbeat._write
    monkeypatch.setattr(Heartbeat, "_write", lambda h, **k: begun.append(h.me.id) or write(h, **k))
    output = Store.open(str(tmp_path))
    with exclusive(output, "segment") as held:
        assert isinstance(held, Heartbeat)
        assert sessions(output) == [f"{held.me.id}.json"]
        assert begun == [held.me.id] * 2, "a claim and a hold, of the only one"


def refused_by(output: Store, other: Holder) -> None:
    """The session of another machine, which goes on beating."""
    name = f"{other.id}.json"
    file = output.child(FOLDER).read_bytes(name).replace(b": 3", b": 4")
    beats = threading.Timer(0.5, output.child(FOLDER).write_bytes, (name, file))
    beats.start()
    told = "on elsewhere, process 7, since 20"
    with pytest.raises(OutputError, match=told), exclusive(output, "segment"):
        pytest.fail("both hold it")
    beats.join()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder on a disk of this machine, which others may mount."""
    monkeypatch.setattr(lock, "is_of_one_machine", lambda folder: True)
    return Store.open(str(tmp_path / "out"))


def test_own_disk__a_live_session_of_a_machine_that_mounts_it_is_left_alone(disk: Store) -> None:
    other = leave(disk, kernel=None)
    disk.write_bytes(NAME, b"its own")
    refused_by(disk, other)
    assert disk.read_bytes(NAME) == b"its own"
    assert sessions(disk) == [f"{other.id}.json"]


def test_own_disk__nobody_waits(disk: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor after a reboot or in another container, where a process number says nothing."""
    monkeypatch.setattr(heartbeat, "SETTLE_S", 60.0)
    monkeypatch.setattr(heartbeat, "WATCH_S", 60.0)
    dead = leave(disk, kernel=sys.platform)
    with exclusive(disk, "segment") as held:
        (mine,) = sessions(disk)
        assert mine != f"{dead.id}.json"
        held.check()
        disk.child(FOLDER).remove(mine)
        with pytest.raises(OutputError, match="was taken over"):
            held.check()
    assert list(Path(disk.uri).iterdir()) == []


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder that other machines mount too, whose file locks they do not see."""
    monkeypatch.setattr(lock, "is_of_one_machine", lambda folder: False)
    return Store.open(str(tmp_path / "out"))


def test_shared_folder__a_live_session_of_another_machine_keeps_its_files(shared: Store) -> None:
    other = leave(shared)
    held_there = json.dumps(other.to_dict()).encode()
    shared.write_bytes(NAME, held_there)  # and no lock that this kernel knows
    refused_by(shared, other)
    assert shared.read_bytes(NAME) == held_there
    assert sessions(shared) == [f"{other.id}.json"]


def test_shared_folder__both_are_held_and_go(shared: Store) -> None:
    leave(shared)  # it does not beat any more
    with exclusive(shared, "segment") as held:
        held.check()
        (mine,) = sessions(shared)
        assert mine == f"{json.loads(shared.read_bytes(NAME))['id']}.json"
        shared.child(FOLDER).remove(mine)
        with pytest.raises(OutputError, match="was taken over"):
            held.check()
    assert [entry.uri for entry in shared.walk()] == []


def test_shared_folder__a_file_lock_of_this_machine_is_respected(shared: Store) -> None:
    with held_elsewhere(shared):  # a local folder to that process
        held_there = [*sessions(shared), shared.read_bytes(NAME)]
        with pytest.raises(OutputError, match="another session"), exclusive(shared, "segment"):
            pytest.fail("both hold it")
        assert [*sessions(shared), shared.read_bytes(NAME)] == held_there


MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:40 / /data rw shared:5 master:2 - nfs4 server:/export rw,local_lock=flock
31 30 0:41 / /data/scratch rw - xfs /dev/vdb rw
32 27 0:42 / /my\040bucket rw - fuse.s3fs s3fs rw
33 27 0:43 / /my\040bucket/disk rw - ext4 /dev/vdc rw
34 33 0:44 / /my\040bucket/disk rw - lustre mgs:/fs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/out", "ext4"),
        ("/data", "nfs4"),
        ("/data/runs/1", "nfs4"),
        ("/database", "ext4"),
        ("/data/scratch/1", "xfs"),
        ("/my bucket/out", "fuse.s3fs"),
        ("/my bucket/disk/out", "lustre"),
    ],
)
def test_kind_of__the_deepest_mount(path: str, kind: str) -> None:
    assert kind_of(Path(path), MOUNTS.strip()) == kind


def test_is_of_one_machine__of_this_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(file_system, "_MOUNTS", mounts)
    assert is_of_one_machine(tmp_path / "out"), "outside Linux nobody says"
    for kind, alone in (("ext4", True), ("nfs4", False), ("fuse.gcsfuse", False)):
        mounts.write_text(f"27 1 254:0 / / rw,relatime shared:1 - {kind} /dev/vda rw\n")
        assert is_of_one_machine(tmp_path / "out") == alone


def test_heartbeat__a_stale_one_is_replaced(bucket: Store) -> None:
    other = leave(bucket)
    began = time.monotonic()
    with exclusive(bucket, "segment") as held:
        assert 1.5 < time.monotonic() - began < 6
        assert isinstance(held, Heartbeat)
        assert held.replaces == [other.id]
        assert f"{other.id}.json" not in sessions(bucket)


def test_heartbeat__a_live_one_of_another_machine_is_left_alone(bucket: Store) -> None:
    other = leave(bucket)
    file = bucket.child(FOLDER).read_bytes(f"{other.id}.json")
    beats = threading.Timer(
        0.5, bucket.child(FOLDER).write_bytes, (f"{other.id}.json", file.replace(b": 3", b": 4"))
    )
    beats.start()
    told = "on elsewhere, process 7, since 20"
    with pytest.raises(OutputError, match=told), exclusive(bucket, "segment"):
        pytest.fail("both hold it")
    beats.join()
    assert sessions(bucket) == [f"{other.id}.json"]


def test_heartbeat__a_holder_wins_over_a_smaller_id(bucket: Store) -> None:
    mine = Heartbeat(bucket, Holder.me("segment"))
    coming = threading.Timer(0.1, leave, (bucket,), {"holds": True})
    coming.start()
    with pytest.raises(heartbeat.Held):
        mine.acquire()
    coming.join()
    assert f"{mine.me.id}.json" not in sessions(bucket)


def test_heartbeat__the_smaller_of_two_claims_stays(bucket: Store) -> None:
    for id, wins in (("f" * 32, True), ("0" * 32, False)):
        mine = Heartbeat(bucket, Holder.me("segment"))
        other = Holder(**mine.me.to_dict() | {"id": id})
        text = json.dumps(other.to_dict() | {"holds": False, "beats": 1, "replaces": []})
        put = bucket.child(FOLDER).write_bytes
        coming = threading.Timer(0.1, put, (f"{id}.json", text.encode()))
        coming.start()
        if wins:
            mine.acquire()
            mine.release()
        else:
            with pytest.raises(heartbeat.Held):
                mine.acquire()
        coming.join()
        bucket.child(FOLDER).remove(f"{id}.json")


def test_heartbeat__it_beats_and_notices_a_loss(bucket: Store) -> None:
    with exclusive(bucket, "segment") as held:
        assert isinstance(held, Heartbeat)
        name = f"{held.me.id}.json"
        first = bucket.child(FOLDER).read_bytes(name)
        time.sleep(0.7)
        assert bucket.child(FOLDER).read_bytes(name) != first
        held.check(now=False)
        other = leave(bucket, replaces=[held.me.id])
        with pytest.raises(OutputError, match="was taken over by `dinoidd segment` on elsewhere"):
            held.check()
        with pytest.raises(OutputError, match="run the same command again"):
            held.check(now=False)
    assert sessions(bucket) == [f"{other.id}.json"]


def test_heartbeat__its_file_was_removed(bucket: Store) -> None:
    with exclusive(bucket, "segment") as held:
        assert isinstance(held, Heartbeat)
        bucket.child(FOLDER).remove(f"{held.me.id}.json")
        time.sleep(0.7)
        with pytest.raises(OutputError, match="taken over by another session, which removed"):
            held.check(now=False)
        assert sessions(bucket) == [], "it must not come back by a beat"


def hanging(handler: Handler, _: FlakyStore) -> bool:
    """No answer for a while."""
    body_of(handler)
    time.sleep(5)
    return down(handler, _)


def beats(flaky: FlakyStore) -> int:
    with flaky.lock:
        return sum(method == "PUT" for method, _ in flaky.requests)


def test_heartbeat__an_outage_does_not_hold_it_up(s3: S3) -> None:
    with flaky_store(s3.endpoint_url) as flaky:
        options = StorageOptions(endpoint_url=flaky.endpoint_url)
        output = Store.open(f"s3://{s3.new_bucket()}/out", options)
        with exclusive(output, "segment") as held:
            flaky.add(down, method="PUT")
            before = beats(flaky)
            time.sleep(3)
            assert beats(flaky) - before >= 7, "each beat is one attempt: the next one is soon"
            flaky.clear()
            before = output.child(FOLDER).read_bytes(*sessions(output))
            time.sleep(0.7)
            assert output.child(FOLDER).read_bytes(*sessions(output)) != before
            held.check()
        assert sessions(output) == []


@pytest.mark.parametrize("outage", [down, hanging])
def test_heartbeat__ends_in_an_outage_without_waiting(
    s3: S3, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, outage: Act
) -> None:
    monkeypatch.setattr(logger, "propagate", True)
    with flaky_store(s3.endpoint_url) as flaky:
        options = StorageOptions(endpoint_url=flaky.endpoint_url)
        output = Store.open(f"s3://{s3.new_bucket()}/out", options)
        with exclusive(output, "segment") as held:
            flaky.add(outage)
            time.sleep(0.5)
            asked = time.monotonic()
        assert time.monotonic() - asked < heartbeat.RELEASE_S + 1
        assert caplog.messages[-1].endswith("the next session watches for 2 s")
        flaky.clear()
        assert isinstance(held, Heartbeat)
        held._thread.join(30)
        assert not held._thread.is_alive()
        left = sessions(output)
        time.sleep(0.5)
        assert sessions(output) == left, "no beat comes after the end"


def test_heartbeat__a_foreign_file(bucket: Store) -> None:
    bucket.child(FOLDER).write_bytes("notes.json", b"[]")
    told = r"_sessions/notes\.json is no session of dinoidd: remove"
    with pytest.raises(OutputError, match=told), exclusive(bucket, "segment"):
        pytest.fail("it was taken for nothing")


def test_holder__a_number_that_is_used_again_is_another_process() -> None:
    me = Holder.me("segment")
    assert not me.is_dead
    assert Holder(**me.to_dict() | {"start_time": "1"}).is_dead
    assert Holder(**me.to_dict() | {"pid": 2**22 + 1}).is_dead
    assert not Holder(**me.to_dict() | {"machine": None, "start_time": "1"}).is_dead
    assert not Holder(**me.to_dict() | {"machine": "another", "start_time": "1"}).is_dead


def test_lock_files__are_nobody_s_rows(store: Store, tmp_path: Path) -> None:
    index_images(str(write_plain(tmp_path / "in", 2)), store)
    with exclusive(store, "segment"):
        check_ownership(store)
        assert RunReader(store.uri, store.options).parts == []
        assert {e.uri.rpartition("/")[2] for e in store.child(MANIFEST).walk()} == {
            "manifest.json",
            "part-000000000000.parquet",
        }


def test_segment__a_second_driver_ends_with_a_sentence(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    write_plain(tmp_path / "in", 2)
    arguments = ["--preset", "tiny", "--input", tmp_path / "in", "--output", store.uri]
    if store.options.endpoint_url:
        arguments += ["--endpoint-url", store.options.endpoint_url]
    with held_elsewhere(store) as process:
        for more in ([], ["--restart"]):
            ran = segment(*arguments, *more)
            assert ran.status == 2
            assert f"another session works on {store.uri}: `dinoidd segment` on " in ran.err
            assert f"process {process.pid}, since" in ran.err
            left = {e.uri.removeprefix(f"{store.uri}/").partition("/")[0] for e in store.walk()}
            assert left in ({NAME, FOLDER}, {FOLDER})


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_segment__stopped_while_it_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    """Before Ray is there: it is told how to go on, once, and nothing is locked."""
    forbid_work(monkeypatch)
    write_plain(tmp_path / "in", 2)
    monkeypatch.setattr(job, "prepare_manifest", lambda *_: os.kill(os.getpid(), sent))
    output = tmp_path / "out"
    ran = segment("--preset", "tiny", "--input", tmp_path / "in", "--output", output)
    assert ran.status == 130
    told = [line.partition(" ")[2] for line in ran.err.splitlines()]
    kept = "interrupted: what is done is kept; run the same command again to resume"
    assert told == [kept, "segment: interrupted"]
    assert list(output.iterdir()) == []
