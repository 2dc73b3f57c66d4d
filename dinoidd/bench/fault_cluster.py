"""A Ray cluster of several nodes on this machine, whose processes can be told apart and killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dinoidd.errors import ClusterError

_MARK = "DINOIDD_FAULTS"  # in the environment of whatever is started here, and of its children
_READY = "Ray runtime started"  # what `ray start` says when its node is registered
_START_S = 120.0
_CPUS = 2  # of each node
_STORE_BYTES = 100_000_000
_RANDOM_PORTS = ("--min-worker-port", "0", "--max-worker-port", "0")  # nodes share the machine


@dataclass
class FaultCluster:
    """A head node without work, and `nodes` that work; use it as a context manager."""

    nodes: int
    address: str = ""
    _id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _count: int = 0

    def __enter__(self) -> "FaultCluster":
        self._folder = tempfile.mkdtemp(prefix="ray-faults-")  # short: sockets lie in it
        try:
            port, agent, client = free_ports(3)
            self.address = f"127.0.0.1:{port}"
            head = ("--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard")
            ports = ("--dashboard-agent-listen-port", str(agent))
            more = ("--ray-client-server-port", str(client), "--temp-dir", self._folder)
            self._start("head", *head, "false", *ports, *more)
            for _ in range(self.nodes):
                self.add_node()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while processes := self.processes():  # one may start another meanwhile
            for process in processes:
                kill(process)
            for started in self._started:
                started.poll()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self) -> None:
        """One more node that works."""
        name = f"node{self._count}"
        self._count += 1
        ports = ("--dashboard-agent-listen-port", str(free_ports(1)[0]))
        self._start(name, "--address", self.address, "--num-cpus", str(_CPUS), *ports)

    def _start(self, name: str, *options: str) -> None:
        store = ("--object-store-memory", str(_STORE_BYTES), "--disable-usage-stats", "--block")
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", "--node-ip-address", "127.0.0.1", *store, *_RANDOM_PORTS, *options]
        log = Path(self._folder) / f"{name}.log"
        self._started.append(self.start(command, name, log))
        self._wait(lambda: _READY in log.read_text(errors="replace"), name)

    def start(
        self, command: list[str], name: str, log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A process that belongs to the cluster, and what it starts in turn."""
        environment = os.environ | {
            _MARK: f"{self._id}-{name};",
            "RAY_AUTH_MODE": "disabled",  # everything is on loopback
            "RAY_ADDRESS": "",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with (log or Path(os.devnull)).open("ab") as said:
            return subprocess.Popen(
                command, env=environment, stdout=said, stderr=said, start_new_session=True
            )

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        until = time.monotonic() + _START_S
        while not condition():
            if time.monotonic() > until:
                raise ClusterError(f"{what} of the local cluster did not start in {_START_S:.0f} s")
            time.sleep(0.1)

    def node_names(self) -> list[str]:
        """The nodes that work and live."""
        names = [f"node{i}" for i in range(self._count)]
        return [name for name in names if self.processes("raylet/raylet", name)]

    def kill_node(self, name: str) -> int:
        """SIGKILL for all processes of a node at once; how many they were."""
        processes = self.processes(node=name)
        for process in processes:
            kill(process)
        return len(processes)

    def processes(self, title: str = "", node: str = "") -> list[int]:
        """Ids of the processes whose command line holds `title`, of one node or of all."""
        mark = f"{_MARK}={self._id}-{f'{node};' if node else ''}".encode()
        ids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]
        return [i for i in ids if _is(i, mark, title.encode())]


def _is(process: int, mark: bytes, title: bytes) -> bool:
    try:
        folder = Path(f"/proc/{process}")
        return title in (folder / "cmdline").read_bytes() and mark in (
            (folder / "environ").read_bytes()
        )
    except OSError:  # it has ended
        return False


def temporary_file_of(process: int) -> Path | None:
    """The local file that a process writes at this moment, which gets its name when it is whole."""
    try:
        opened = (Path(entry.path).readlink() for entry in os.scandir(f"/proc/{process}/fd"))
        return next((path for path in opened if path.suffix == ".tmp"), None)
    except OSError:  # it has ended, or just closed a file
        return None


def kill(process: int) -> bool:
    """SIGKILL; whether it was still there."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports
