"""A real Ray head with a dashboard, as a user starts it: `ray start --head`, in processes of its own.

Every port is one that was free, and all state lies in a folder of its own, so that several may run on a
machine. It is stopped by the ids of its own processes.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.autoscaler
import yaml
from ray_trainings import children

RAY = Path(sys.executable).with_name("ray")
START_S = 60
STOP_S = 10
PORTS = (
    *("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"),
    *("ray-client-server-port", "metrics-export-port", "runtime-env-agent-port"),
    *("node-manager-port", "object-manager-port"),
)
FAKE_HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # of Ray's fake provider
FAKE_HEAD_TYPE = "ray.head.default"
CLEARED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def free_ports(count: int) -> list[int]:
    """All are held until all are known, so that they differ."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


class RayHead:
    """Start with `start()`, stop with `stop()`.

    Args:
        cpus: logical ones.
        token: of token authentication; None: it is off.
        environment: more variables, which jobs inherit.
        groups: of nodes that an autoscaler (v2) adds on this machine, by name, as in a `ray up` file.
    """

    def __init__(
        self,
        *,
        cpus: int = 4,
        token: str | None = None,
        environment: dict[str, str] | None = None,
        groups: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))  # sockets want a short path
        self.cpus = cpus
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.dashboard = f"http://127.0.0.1:{self.ports['dashboard-port']}"
        self.environment = {k: v for k, v in os.environ.items() if k not in CLEARED}
        metrics = free_ports(2)  # of processes that take no option
        self.environment |= {
            "AUTOSCALER_METRIC_PORT": str(metrics[0]),
            "DASHBOARD_METRIC_PORT": str(metrics[1]),
            "PATH": f"{RAY.parent}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_AUTH_MODE": "disabled" if token is None else "token",
            **({} if token is None else {"RAY_AUTH_TOKEN": token}),
            **(environment or {}),
        }
        self.token = token
        self.address = f"127.0.0.1:{self.ports['port']}"
        self._options = [] if groups is None else [self._autoscaling(groups)]
        self._process: subprocess.Popen[bytes] | None = None

    def _autoscaling(self, groups: dict[str, Any]) -> str:
        """Ray's provider of nodes that are processes. Its short name wants a file that no wheel has."""
        of_head = {"resources": {"CPU": self.cpus}, "node_config": {}, "max_workers": 0}
        provider = {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "gcs_address": self.address,
            "head_node_id": FAKE_HEAD,
            "launch_multiple": True,
        }
        defaults = Path(ray.autoscaler.__file__).with_name("local") / "defaults.yaml"
        config = yaml.safe_load(defaults.read_text()) | {
            "cluster_name": "fake",
            "provider": provider,
            "max_workers": sum(group["max_workers"] for group in groups.values()),
            "head_node_type": FAKE_HEAD_TYPE,
            "available_node_types": {FAKE_HEAD_TYPE: of_head} | groups,
        }
        file = self.folder / "autoscaling.json"
        file.write_text(json.dumps(config))
        self.environment |= {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD,
        }
        return f"--autoscaling-config={file}"

    def start(self) -> None:
        command = [str(RAY), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
        command += [f"--num-cpus={self.cpus}", "--num-gpus=0", f"--temp-dir={self.folder}"]
        command += ["--object-store-memory=300000000"]
        command += self._options
        command += [f"--{name}={port}" for name, port in self.ports.items()]
        with (self.folder / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(
                    f"the head did not start: {(self.folder / 'start.log').read_text()[-3000:]}"
                )
            time.sleep(0.2)

    def _answers(self) -> bool:
        """Whether it takes jobs, which needs an agent beside the dashboard."""
        request = urllib.request.Request(f"{self.dashboard}/api/jobs/")
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End the head, all that it started, and its folder."""
        if self._process is not None:
            below = children(self._process.pid)
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            for pid in [*below, self._process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def ray_head(**options: object) -> Iterator[RayHead]:
    head = RayHead(**options)  # type: ignore[arg-type]
    head.start()
    try:
        yield head
    finally:
        head.stop()
