"""A web server that tests take down."""

import http.server
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


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
