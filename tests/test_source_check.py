"""A web server or a mount that is away as a whole ends no image; one that is lost costs itself alone."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from images import write_plain
from segment_runs import proof, rows_of
from test_stages import reader

from dinoidd.errors import ClusterError, OutageError
from dinoidd.segment import stages
from dinoidd.storage import Patience

IMAGES = 12


@dataclass
class Web:
    """A server of a folder's images, which goes down and comes back at the same port."""

    folder: Path
    refuse: Callable[[str], int | None] = lambda path: None
    served: int = 0
    down_after: int | None = None  # images; then nobody listens any more
    port: int = 0
    _server: http.server.ThreadingHTTPServer | None = field(default=None)

    def up(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def list_of(self, images: int) -> Path:
        names = [f"http://127.0.0.1:{self.port}/{i:04d}.png" for i in range(images)]
        path = self.folder.parent / "list.txt"
        path.write_text("\n".join(names))
        return path

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if web.down_after is not None and web.served >= web.down_after:
                    threading.Thread(target=web.down, daemon=True).start()
                    return self.send_error(503)
                if status := web.refuse(self.path):
                    return self.send_error(status)
                web.served += 1
                body = (web.folder / self.path.lstrip("/")).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(write_plain(tmp_path / "images", IMAGES))
    made.up()
    yield made
    made.down()


@pytest.fixture
def read(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stages.ReadImages:
    """Pieces of four, read without patience."""
    monkeypatch.setattr(stages, "STEADY", Patience(attempts=1, seconds=5))
    return reader(web.list_of(IMAGES), tmp_path / "out", rows_per_chunk=4)


def test_read_images__web_server_that_goes_down(read: stages.ReadImages, web: Web) -> None:
    assert read(0)["error_kind"].null_count == 4
    web.down()
    with pytest.raises(OutageError, match="does not answer, nor does any of 4 other") as caught:
        read(1)
    assert caught.value.kind == "unreachable"
    web.up()
    assert read(1)["error_kind"].null_count == 4


def test_read_images__web_server_that_goes_down_within_a_piece(
    read: stages.ReadImages, web: Web
) -> None:
    web.down_after = 2
    with pytest.raises(OutageError, match="nor does any of 2 other addresses that were asked"):
        read(0)


@pytest.mark.parametrize("dead", [range(1), range(4), range(10)])
def test_read_images__addresses_that_are_dead_while_others_answer(
    dead: range, read: stages.ReadImages, web: Web
) -> None:
    names = [f"/{i:04d}.png" for i in dead]
    web.refuse = lambda path: 503 if path in names else None
    kinds = [kind for chunk in range(3) for kind in read(chunk)["error_kind"].to_pylist()]
    assert kinds == ["unreachable" if i in dead else None for i in range(IMAGES)]


def test_read_images__refusals_are_answers(read: stages.ReadImages, web: Web) -> None:
    web.refuse = lambda path: 503 if path < "/0004.png" else 403
    assert read(0)["error_kind"].to_pylist() == ["unreachable"] * 4
    assert read(1)["error_kind"].to_pylist() == ["forbidden"] * 4


def test_read_images__node_without_the_mount(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "in", IMAGES)
    read = reader(folder, tmp_path / "out", rows_per_chunk=4)
    (folder / "0001.png").unlink()
    assert read(0)["error_kind"].to_pylist() == [None, "missing", None, None]
    folder.rename(tmp_path / "not mounted")
    with pytest.raises(ClusterError) as caught:
        read(1)
    assert str(caught.value) == (
        f"{folder} is not there on {socket.gethostname()}, nor are the folders of 4 other images: mount "
        "them on every node, or take this one out. What is done is kept: run the same command again to "
        "resume"
    )


def test_read_images__folder_that_vanished_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_plain(tmp_path / "in" / name, 2)
    read = reader(tmp_path / "in", tmp_path / "out", rows_per_chunk=2)
    shutil.rmtree(tmp_path / "in" / "b")
    kinds = [kind for chunk in range(3) for kind in read(chunk)["error_kind"].to_pylist()]
    assert kinds == [None, None, "missing", "missing", None, None]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_segment__web_server_goes_down_in_the_middle(web: Web, tmp_path: Path) -> None:
    """The run waits and ends with what it did; when the server is back, the same command ends it."""
    where = ["--input", web.list_of(IMAGES), "--output", tmp_path / "out", "--preset", "tiny"]
    size = ["--batch-size", 2, "--rows-per-chunk", 2, "--rows-per-file", 4]
    command = [sys.executable, "-m", "dinoidd", "segment", *where, *size]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command), "--outage-patience", "5"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
        )

    web.down_after = 6
    ran = run()
    assert ran.returncode == 2, ran.stderr
    assert "The run waits up to 5s (--outage-patience); what is done is kept" in ran.stderr
    assert "the same command goes on from there" in ran.stderr
    web.down_after = None
    web.up()
    ran = run()
    assert ran.returncode == 0, ran.stderr
    assert proof(tmp_path / "out").ok == IMAGES
    assert [row["error_kind"] for row in rows_of(tmp_path / "out")] == [None] * IMAGES
