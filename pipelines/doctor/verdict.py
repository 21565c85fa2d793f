"""What a check says: ok, warn or fail, in one line, with the remedy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import clean_detail, redact

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Verdict:
    """One line of the doctor's."""

    level: Level
    name: str
    words: str
    remedy: str = ""

    def line(self) -> str:
        """For people; credentials in addresses are never shown."""
        text = f"{self.words}; {self.remedy}" if self.remedy else self.words
        return f"{self.level:<4}  {self.name:<14} {redact(' '.join(text.split()))}"


Verdicts = Iterator[Verdict]


def ok(name: str, words: str) -> Verdict:
    """All is well."""
    return Verdict("ok", name, words)


def warn(name: str, words: str, remedy: str) -> Verdict:
    """The run can start, and may suffer."""
    return Verdict("warn", name, words, remedy)


def fail(name: str, words: str, remedy: str) -> Verdict:
    """The run would fail."""
    return Verdict("fail", name, words, remedy)


def knock(host: str, port: int, timeout: float = 5.0) -> str:
    """Why nothing takes a TCP connection there; empty when something does."""
    try:
        with socket.create_connection((host, port), timeout):
            return ""
    except OSError as error:
        return clean_detail(error)


def address(text: str, port: int | None = None) -> tuple[str, int] | None:
    """host and port of `host:port`, `[v6]:port` or a URL; None where that is not what it is."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        number = parts.port or port
    except ValueError:
        return None
    return (parts.hostname, number) if parts.hostname and number else None
