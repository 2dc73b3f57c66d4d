"""Images of web servers, which send what they like and as they like."""

import gzip
import http.server
import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from dinoidd.errors import StorageError
from dinoidd.storage import ObjectInfo, ObjectReader, Patience

BODY = bytes(range(256)) * 40
ONCE = Patience(attempts=1, seconds=2)


@contextmanager
def web(pieces: Iterable[bytes], pause: float = 0.0, **headers: str) -> Iterator[str]:
    """The address of an image that comes in pieces: chunked, or with these headers as it is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in (headers or {"Transfer-Encoding": "chunked"}).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            for piece in [] if self.command == "HEAD" else itertools.chain(pieces, [b""]):
                chunked = b"%x\r\n%s\r\n" % (len(piece), piece)
                self.wfile.write(piece if headers else chunked)
                self.wfile.flush()
                time.sleep(pause)
            self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Readers go away."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x.png"
    finally:
        server.shutdown()
        server.server_close()


def in_four(data: bytes) -> list[bytes]:
    quarter = len(data) // 4
    return [data[i : i + quarter] for i in range(0, len(data), quarter)]


def test_read__of_unknown_length_comes_whole() -> None:
    with web(in_four(BODY), pause=0.1) as uri:
        assert ObjectReader().read(uri, max_bytes=len(BODY)) == BODY
        with pytest.raises(StorageError, match=r"has [\d,]+ bytes, more than the limit of 9,000"):
            ObjectReader().read(uri, max_bytes=9_000)


def test_read__without_end_stops_at_the_limit() -> None:
    with web(itertools.repeat(BODY)) as uri, pytest.raises(StorageError) as caught:
        ObjectReader().read(uri, max_bytes=100_000)
    assert caught.value.kind == "too_large"


def test_read__packed_body_stops_at_the_limit() -> None:
    packed = gzip.compress(bytes(50_000_000))
    told = {"Content_Encoding": "gzip", "Content_Length": str(len(packed))}
    assert len(packed) < 100_000
    with web([packed], **told) as uri, pytest.raises(StorageError) as caught:
        ObjectReader().read(uri, max_bytes=100_000)
    assert caught.value.kind == "too_large"


def test_read__cut_body_is_no_image() -> None:
    cut = web([BODY[:-1]], Content_Length=str(len(BODY)))
    with cut as uri, pytest.raises(StorageError, match="does not answer") as caught:
        ObjectReader(patience=ONCE).read(uri, max_bytes=100_000)
    assert caught.value.kind == "unreachable"


def test_read__trickle_ends() -> None:
    began = time.monotonic()
    with web(itertools.repeat(b"x"), pause=0.1) as uri, pytest.raises(StorageError) as caught:
        ObjectReader(patience=ONCE).read(uri, max_bytes=100_000)
    assert time.monotonic() - began < 20
    assert caught.value.kind == "unreachable"


def test_read__changed_since_it_was_listed() -> None:
    listed = ObjectInfo(uri="", size=len(BODY) + 1)
    for headers in ({}, {"Content_Length": str(len(BODY))}):
        with web([BODY], **headers) as uri, pytest.raises(StorageError) as caught:
            ObjectReader().read(uri, max_bytes=100_000, indexed=listed)
        assert caught.value.kind == "changed"
