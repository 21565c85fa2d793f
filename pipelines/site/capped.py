"""yt-dlp under a lid: what a site may send, in bytes and in seconds, whatever it says of it.

yt-dlp's own limits concern a video's body alone and are looked at between two blocks. A page or
playlist without end, a compressed nothing that unpacks to gigabytes, and a server that lets a byte
drip now and then would pass below them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import yt_dlp

from pipelines.site.fetch_errors import TOO_LARGE, TOO_LONG, FetchError
from pipelines.statuses import Status

PAGE = 64 * 2**20
"""Bytes of what is read at once, a page or a playlist, and of all that is not the video."""
_PIECE = 64 * 1024


class CappedYoutubeDL(yt_dlp.YoutubeDL):  # type: ignore[misc]
    """All its requests together get `max_bytes` and a page, unpacked, within `max_seconds`.

    Raises FetchError beyond that. To be used as a context manager.
    """

    def __init__(self, options: dict[str, Any], max_bytes: int, max_seconds: float) -> None:
        self._left = max_bytes + PAGE
        self._deadline = time.monotonic() + max_seconds
        self._answers: list[weakref.ref[Any]] = []
        self._watch = threading.Timer(max_seconds, self._hang_up)
        self._watch.daemon = True
        super().__init__(options)

    def __enter__(self) -> CappedYoutubeDL:
        self._watch.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.cancel()
        super().__exit__(*error)

    def urlopen(self, request: Any) -> Any:
        """A response whose body is capped; its head must have come before the deadline."""
        came: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def ask(send: Callable[[Any], Any]) -> None:
            try:
                came.put((send(request), None))
            except BaseException as error:  # noqa: BLE001 (raised below, where it is waited for)
                came.put((None, error))

        # Every byte that drips restarts the socket's timeout, so the wait is somebody else's.
        threading.Thread(target=ask, args=(super().urlopen,), daemon=True).start()
        try:
            response, error = came.get(timeout=max(0.001, self._deadline - time.monotonic()))
        except queue.Empty:
            raise FetchError(Status.NETWORK, TOO_LONG) from None
        if error is not None:
            raise error
        # Weakly: an answer that yt-dlp lets go must end, or the site would send all of it.
        itself, plain = weakref.ref(response), type(response).read
        self._answers = [answer for answer in self._answers if answer()] + [itself]
        response.read = lambda amount=None: self._read(partial(plain, itself()), amount)
        return response

    def _read(self, read: Callable[[int], bytes], amount: int | None = None) -> bytes:
        if amount is not None:
            return self._counted(read, amount)
        pieces, size = [], 0
        while piece := self._counted(read, _PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > PAGE:
                raise FetchError(Status.NOT_A_VIDEO, "a page without end")
        return b"".join(pieces)

    def _counted(self, read: Callable[[int], bytes], amount: int) -> bytes:
        try:
            data = read(amount)
        finally:
            # Hung up on, a body without a length looks like one that is whole.
            if time.monotonic() > self._deadline:
                raise FetchError(Status.NETWORK, TOO_LONG)
        self._left -= len(data)
        if self._left < 0:
            raise FetchError(Status.NO_FORMAT, TOO_LARGE)
        return data

    def _hang_up(self) -> None:
        """End the reads that are under way."""
        for answer in filter(None, [itself() for itself in self._answers]):
            with (
                contextlib.suppress(OSError, ValueError),  # it has ended by itself
                socket.socket(fileno=os.dup(answer.fp.fileno())) as connection,
            ):
                connection.shutdown(socket.SHUT_RDWR)
