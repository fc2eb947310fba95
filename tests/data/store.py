"""A small store of files over HTTP, with Range requests, that notes what is asked and fails on demand."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Store:
    """What it serves is ``files``; ``reads`` are the (name, first byte, bytes) of all Range requests."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    failures: list[int] = field(default_factory=list)
    """Statuses with which the next requests of parts are answered."""
    forbidden: bool = False
    ranges: bool = True

    def holds(self, folder: Path) -> None:
        self.files |= {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def store() -> Iterator[Store]:
    """A running store on this machine."""
    state = Store()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections

        def do_HEAD(self) -> None:
            self.answer(with_content=False)

        def do_GET(self) -> None:
            self.answer(with_content=True)

        def answer(self, *, with_content: bool) -> None:
            state.connections.add(self.client_address[1])
            name = self.path.partition("?")[0].lstrip("/")
            content = state.files.get(name)
            asked = self.headers.get("Range") if state.ranges else None
            if state.forbidden or content is None:
                self.reply(403 if state.forbidden else 404, b"", {})
                return
            if asked and state.failures:
                self.reply(state.failures.pop(0), b"", {})
                return
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            headers = {"ETag": tag} | ({"Accept-Ranges": "bytes"} if state.ranges else {})
            if self.headers.get("If-Match", tag) != tag:
                self.reply(412, b"", headers)
            elif asked is None:
                self.reply(200, content, headers, with_content=with_content)
            else:
                start, _, end = asked.removeprefix("bytes=").partition("-")
                first, last = int(start), int(end or len(content) - 1)
                state.reads.append((name, first, last + 1 - first))
                headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
                self.reply(206, content[first : last + 1], headers)

        def reply(self, status: int, content: bytes, headers: dict[str, str], *, with_content: bool = True) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
