"""A real S3 server for the tests: OpenStack Swift with its S3 API, on loopback.

Swift lives in an environment of its own, `.cache/swift-VERSION` (its old dependencies must not meet
ours), that is made once. A server keeps all its state in one folder and is four processes: they are
stopped by their own ids, and the kernel stops them if the tests are killed.
"""

import contextlib
import ctypes
import fcntl
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

VERSION = "2.38.3"
ACCESS_KEY, SECRET_KEY, REGION = "test:tester", "testing", "us-east-1"
CACHE = Path(__file__).resolve().parents[1] / ".cache"
KINDS = ("account", "container", "object", "proxy")
START_TIMEOUT_S = 30

# Runs under Swift's own python: one device, one replica, 16 partitions.
RINGS = """
import sys
from swift.common.ring import RingBuilder
folder = sys.argv[1]
for name, port in (argument.split("=") for argument in sys.argv[2:]):
    ring = RingBuilder(4, 1, 1)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "device": "disk", "meta": "",
                  "ip": "127.0.0.1", "port": int(port),
                  "replication_ip": "127.0.0.1", "replication_port": int(port)})
    ring.rebalance()
    ring.get_ring().save(f"{folder}/{name}.ring.gz")
"""

COMMON = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_level = WARNING
workers = 0
"""
BACKEND = """[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
container_update_timeout = 60
"""
FILTERS = {
    "healthcheck": "",
    "s3api": f"location = {REGION}\nmulti_delete_concurrency = 4\n",
    "tempauth": f"user_{ACCESS_KEY.replace(':', '_')} = {SECRET_KEY} .admin\n",
    "bulk": "",
    "slo": "",
    "symlink": "",
    "versioned_writes": "allow_object_versioning = true\n",
}


class S3Server:
    """Start with `start()`, stop with `stop()`; `endpoint_url` is where it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.endpoint_url = ""

    def start(self) -> None:
        """Configure and start the four processes, and wait until all answer."""
        python = swift_python()
        (self.folder / "devices" / "disk").mkdir(parents=True)
        require_xattrs(self.folder / "devices" / "disk")
        ports = free_ports()
        self.endpoint_url = f"http://127.0.0.1:{ports['proxy']}"
        configure(self.folder, ports, python)
        try:
            self.processes = [self._spawn(python, kind) for kind in KINDS]
            self._wait(ports)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the processes of this server and no other, and drop its data."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, python: Path, kind: str) -> subprocess.Popen[bytes]:
        command = [python, python.with_name(f"swift-{kind}-server"), f"{self.folder}/{kind}.conf"]
        with (self.folder / f"{kind}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "-v"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _wait(self, ports: dict[str, int]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        waiting = dict(ports)
        while waiting:
            for kind, port in list(waiting.items()):
                if answers(port):
                    del waiting[kind]
            ended = [p.args for p in self.processes if p.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "".join(p.read_text()[-600:] for p in self.folder.glob("*.log"))
                what = f"the S3 test server did not start ({ended or waiting})"
                raise RuntimeError(f"{what}:\n{logs}")
            time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether an HTTP server answers there, with whatever status."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def swift_python() -> Path:
    """The python of Swift's environment, which the first caller makes and the others wait for."""
    folder = CACHE / f"swift-{VERSION}"
    python, complete = folder / "bin" / "python", folder / "complete"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "swift.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*install, f"swift=={VERSION}"], check=True)
            complete.touch()
    return python


def require_xattrs(folder: Path) -> None:
    """Swift keeps its metadata in extended attributes: without them it fails obscurely."""
    try:
        os.setxattr(folder, "user.test", b"x" * 2000)
        os.removexattr(folder, "user.test")
    except OSError as error:
        raise RuntimeError(
            f"the S3 test server needs extended attributes, and {folder} has none ({error}): set "
            "TMPDIR to a folder on ext4 or xfs, or on a tmpfs of Linux 6.6 or newer"
        ) from error


def free_ports() -> dict[str, int]:
    """One free port a process; all are held until all are known, so that they differ."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for kind in KINDS:
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))
            ports[kind] = held.getsockname()[1]
        return ports


def configure(folder: Path, ports: dict[str, int], python: Path) -> None:
    """Write the rings and the configuration files."""
    backends = [f"{kind}={port}" for kind, port in ports.items() if kind != "proxy"]
    subprocess.run([python, "-c", RINGS, folder, *backends], check=True, stderr=subprocess.DEVNULL)
    salt = f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n"
    policy = "[storage-policy:0]\nname = one\ndefault = yes\n"
    (folder / "swift.conf").write_text(salt + policy)
    for kind, port in ports.items():
        text = COMMON.format(port=port, user=getpass.getuser(), folder=folder)
        text += proxy_pipeline() if kind == "proxy" else BACKEND.format(kind=kind)
        (folder / f"{kind}.conf").write_text(text)


def proxy_pipeline() -> str:
    """The public server: S3 calls are translated, checked, and passed to the other three."""
    sections = [f"[pipeline:main]\npipeline = {' '.join(FILTERS)} proxy-server\n"]
    sections += [f"[filter:{n}]\nuse = egg:swift#{n}\n{more}" for n, more in FILTERS.items()]
    sections += ["[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"]
    return "".join(sections)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
