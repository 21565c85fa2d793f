"""Addresses of a site on the loopback interface, and what it was asked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from pipelines.sample.server import SampleServer

Row = dict[str, Any]
Run = Callable[..., dict[str, Row]]


def at(site: SampleServer) -> str:
    return site.url + "/watch/{video_id}"


def hits(site: SampleServer, video: str) -> int:
    return sum(h.requests for path, h in site.hits.items() if video in path)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
