"""A store that fails on purpose: an HTTP proxy in front of the tests' S3 server, with rules.

AWS signatures cover the Host header and the exact path, so both are passed on as they came: the server
cannot tell that there is a proxy. A rule says which requests it is for, how often it applies, and what
happens to them.
"""

import http.client
import http.server
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

Handler = http.server.BaseHTTPRequestHandler
Answer = tuple[int, list[tuple[str, str]], bytes]
Act = Callable[[Handler, "FlakyStore"], bool]
_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Rule:
    """What happens to some requests.

    Args:
        act: does the answering; returns False to let the request through after all.
        method, holds: of the request line; `holds` is a part of the unquoted target.
        times: how many requests it is for; None: all.
        after: how many matching requests go through before.
    """

    act: Act
    method: str = ""
    holds: str = ""
    times: int | None = None
    after: int = 0
    seen: int = 0
    hits: int = 0

    def takes(self, method: str, target: str) -> bool:
        """Whether this request is one for it; counts."""
        if (self.method and method != self.method) or self.holds not in unquote(target):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


@dataclass
class FlakyStore:
    """Start with `flaky_store`; `endpoint_url` is where it answers."""

    behind: str  # the real server
    endpoint_url: str = ""
    rules: list[Rule] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and unquoted target
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, act: Act, **of: Any) -> Rule:
        """Add a rule; the first that takes a request decides."""
        rule = Rule(act, **of)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Be a good store again."""
        with self.lock:
            self.rules.clear()

    def rule_for(self, method: str, target: str) -> Rule | None:
        with self.lock:
            self.requests.append((method, unquote(target)))
            return next((r for r in self.rules if r.takes(method, target)), None)

    def ask(self, handler: Handler, body: bytes) -> Answer:
        """What the real server answers."""
        server = urlsplit(self.behind).netloc
        connection = http.client.HTTPConnection(server, timeout=60)
        try:
            connection.putrequest(
                handler.command, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in handler.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
            return answer.status, headers, answer.read()
        finally:
            connection.close()


@contextmanager
def flaky_store(behind: str) -> Iterator[FlakyStore]:
    """A proxy in front of the server at `behind`, on loopback."""
    store = FlakyStore(behind)

    class Proxy(_Proxy):
        flaky = store

    server = _Server(("127.0.0.1", 0), Proxy)
    store.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Clients that went away are a part of the play."""


class _Proxy(http.server.BaseHTTPRequestHandler):
    flaky: FlakyStore
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        rule = self.flaky.rule_for(self.command, self.path)
        if rule is None or not rule.act(self, self.flaky):
            send(self, self.flaky.ask(self, body_of(self)))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def log_message(self, *_: object) -> None:
        pass


def body_of(handler: Handler) -> bytes:
    """The request's body; a client that waits for leave to send it gets that (by http.server)."""
    return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))


def send(handler: Handler, answer: Answer, pieces: Callable[[bytes], Any] | None = None) -> None:
    """Pass an answer on; `pieces` writes the body in its own way."""
    status, headers, body = answer
    handler.send_response_only(status)
    lengths = {k.lower() for k, _ in headers} & {"content-length"}
    for name, value in headers if lengths else [*headers, ("Content-Length", str(len(body)))]:
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        (pieces or handler.wfile.write)(body)


# --- what may happen


def refused(status: int, code: str) -> Act:
    """An S3 error."""

    def act(handler: Handler, _: FlakyStore) -> bool:
        body_of(handler)
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"
        send(handler, (status, [("Content-Type", "application/xml")], text.encode()))
        return True

    return act


def throttled(handler: Handler, store: FlakyStore) -> bool:
    """503 SlowDown, as S3 says it to those who ask too much."""
    return refused(503, "SlowDown")(handler, store)


def reset(handler: Handler, _: FlakyStore) -> bool:
    """The connection ends before a word is said."""
    body_of(handler)
    _hang_up(handler)
    return True


def reset_in_body(handler: Handler, store: FlakyStore) -> bool:
    """The connection breaks off in the middle of the object."""

    def half(body: bytes) -> None:
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        _hang_up(handler)

    send(handler, store.ask(handler, body_of(handler)), half)
    return True


def trickling(handler: Handler, store: FlakyStore) -> bool:
    """Ten bytes a second."""

    def slowly(body: bytes) -> None:
        for start in range(len(body)):
            handler.wfile.write(body[start : start + 1])
            handler.wfile.flush()
            time.sleep(0.1)

    send(handler, store.ask(handler, body_of(handler)), slowly)
    return True


def without_length(handler: Handler, store: FlakyStore) -> bool:
    """In pieces, as a proxy passes on what it has not seen the end of."""
    status, headers, body = store.ask(handler, body_of(handler))
    handler.send_response_only(status)
    for name, value in headers:
        if name.lower() != "content-length":
            handler.send_header(name, value)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for piece in (body[:100], body[100:], b""):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    return True


def stalled(seconds: float) -> Act:
    """Nothing is read or said, for some time."""

    def act(handler: Handler, _: FlakyStore) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return act


def down(handler: Handler, store: FlakyStore) -> bool:
    """Nobody answers."""
    return reset(handler, store)


def down_for(seconds: float) -> Act:
    """Nobody answers for some time, counted from the first request that it hits."""
    since: list[float] = []

    def act(handler: Handler, store: FlakyStore) -> bool:
        since.append(time.monotonic())
        return since[-1] - since[0] < seconds and down(handler, store)

    return act


def first_calls(act: Callable[[], None]) -> Act:
    """Do something to the objects, then let the request through."""

    def then(_: Handler, __: FlakyStore) -> bool:
        act()
        return False

    return then


def _hang_up(handler: Handler) -> None:
    """With a reset, not a farewell."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    os.close(handler.connection.detach())
