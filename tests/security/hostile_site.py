"""A site on loopback that sends whatever bytes a test tells it to, and counts them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any

Answer = Callable[["Handler"], None]
MB = 2**20


class Handler(BaseHTTPRequestHandler):
    """Answers a path by the function of that name."""

    protocol_version = "HTTP/1.1"
    server: HostileSite

    def do_GET(self) -> None:
        self.close_connection = True
        answer = self.server.answers.get(self.path.rpartition("/")[2])
        self.server.asked.append(self.path)
        self.server.cookies.append(self.headers.get("Cookie", ""))
        with contextlib.suppress(OSError):  # they hang up on us
            if answer is None:
                self.send(404, b"")
            else:
                answer(self)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def head(self, code: int = 200, **headers: str) -> None:
        """Status and headers; `Content_Type` stands for Content-Type."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, code: int, body: bytes, **headers: str) -> None:
        self.head(code, Content_Length=str(len(body)), **headers)
        self.write(body)

    def write(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)
            self.server.sent += len(data)

    def write_all(self, pieces: Iterator[bytes], every: float = 0.0) -> None:
        for piece in pieces:
            if self.server.closing.wait(every) if every else self.server.closing.is_set():
                return
            self.write(piece)


class HostileSite(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, **answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.sent = answers, 0
        self.asked: list[str] = []
        self.cookies: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def template(self) -> str:
        return self.url + "/watch/{video_id}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def __enter__(self) -> HostileSite:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


def stopwatch() -> Callable[[], float]:
    started = time.monotonic()
    return lambda: time.monotonic() - started


def endless(handler: Handler, kind: str = "video/mp4", first: bytes = b"\0" * 4096) -> None:
    handler.head(Content_Type=kind)
    handler.write(first)
    handler.write_all(repeat(b"\0" * 65536))


def drip_body(handler: Handler) -> None:
    handler.head(Content_Type="video/mp4")
    handler.write_all(repeat(b"\0"), every=0.1)


def left(tmp_path: Path) -> int:
    """Bytes in the work folder."""
    return sum(p.stat().st_size for p in (tmp_path / "work").rglob("*") if p.is_file())
