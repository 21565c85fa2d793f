"""How the sample site answers one request: routes, ranges, and faults on demand."""

from __future__ import annotations

import mimetypes
import re
import socket
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pipelines.sample.server import SampleServer

VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
}
CODES = {
    "403": "Forbidden",
    "404": "Video not found",
    "410": "This video has been removed",
    "429": "Too many requests",
    "503": "Come back later",
}
KINDS = (*CODES, "html", "page", "cut", "empty", "slow", "bot_check")
BOT_CHECK = "Sign in to confirm you’re not a bot. This helps protect our community."

_ROUTE = re.compile(r"/(?:watch/([A-Za-z0-9_-]+)|videos/([A-Za-z0-9_-]+)\.[A-Za-z0-9]+)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PAGE = "<!doctype html><html><head><title>{0}</title></head><body><p>{0}</p></body></html>\n"
_BLOCK = 64 * 1024


class SiteServer(ThreadingHTTPServer):
    """One thread per connection; knows the site whose requests it answers."""

    daemon_threads = True
    # A taken port is an error, never a shared one.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], site: SampleServer) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.site = site

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no fault of ours; anything else is worth its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SiteServer
    timeout = 60

    def setup(self) -> None:
        # A small buffer, so that a client that only peeks does not count as a full delivery.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BLOCK)
        super().setup()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        site = self.server.site
        self.path = unquote(urlsplit(self.path).path)
        site.count(self.path, requests=1)
        route = _ROUTE.fullmatch(self.path)
        if not route:
            self._text(404, "Not found")
            return
        video = route[1] or route[2]
        fault = site.take_fault(video)
        file = site.find(video)
        if fault in CODES:
            self._refuse(fault)
        elif fault == "bot_check":
            # yt-dlp keeps the reason of a 403 and throws its body away.
            self._text(403, BOT_CHECK, reason=BOT_CHECK.partition(".")[0].replace("’", "'"))
        elif fault == "page":
            self._text(200, "Before you continue")
        elif fault == "html":
            self._text(200, "Before you continue", "video/mp4")
        elif fault == "empty":
            self._head(200, 0, "video/mp4")
        elif file is None:
            self._text(404, "Video not found")
        else:
            with file.open("rb") as body:
                self._file(body, file, fault)

    def _refuse(self, code: str) -> None:
        retry = {"Retry-After": str(self.server.site.retry_after)} if code in ("429", "503") else {}
        self._text(int(code), CODES[code], extra=retry)

    def _file(self, body: BinaryIO, file: Path, fault: str) -> None:
        size = file.stat().st_size
        kind = VIDEO_TYPES.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0]
        extra = {"Accept-Ranges": "bytes"}
        start, stop, code = 0, size, 200
        wanted = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if wanted and (wanted[1] or wanted[2]):
            start, stop = _span(wanted[1], wanted[2], size)
            if start >= stop:
                self._head(416, 0, None, {"Content-Range": f"bytes */{size}"})
                return
            code = 206
            extra["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._head(code, stop - start, kind or "application/octet-stream", extra)
        if self.command == "HEAD":
            return
        body.seek(start)
        left = (stop - start) // 2 if fault == "cut" else stop - start
        block = max(1, left // 20) if fault == "slow" else _BLOCK
        while left:
            data = body.read(min(block, left))
            if not data:
                break
            left -= len(data)
            if left or fault == "cut":
                self._send(data)
            else:
                self._send(data, full=int(code == 200), partial=int(code == 206))
            if fault == "slow":
                time.sleep(0.05)
        if fault == "cut":
            self.close_connection = True

    def _text(
        self,
        code: int,
        words: str,
        kind: str = "text/html",
        extra: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        body = _PAGE.format(words).encode()
        self._head(
            code, len(body), f"{kind}; charset=utf-8" if "text" in kind else kind, extra, reason
        )
        if self.command != "HEAD":
            self._send(body)

    def _head(
        self,
        code: int,
        length: int,
        kind: str | None,
        extra: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        self.send_response(code, reason)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, data: bytes, **done: int) -> None:
        # Counted first and taken back on failure: who has the last byte finds it counted.
        amounts = {"bytes": len(data), **done}
        self.server.site.count(self.path, **amounts)
        try:
            self.wfile.write(data)
        except OSError:
            self.server.site.count(self.path, **{name: -n for name, n in amounts.items()})
            raise

    def log_message(self, format: str, *args: Any) -> None:
        """Silent unless asked: a run makes hundreds of requests."""
        if self.server.site.log:
            super().log_message(format, *args)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The half-open range of bytes that a Range header names; empty if it cannot be had."""
    if not first:  # the last N bytes
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
