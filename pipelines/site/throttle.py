"""Manners towards a site: a token bucket and a circuit breaker for all processes of a machine.

Sites count requests by address, so the state belongs to the machine, not to the process: it
lives in small locked files of the temporary folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.progress import complain

LONG = 10.0
"""Seconds that nobody should wait without being told why."""


def state_file(kind: str, name: str) -> Path:
    """The machine-wide state file of a bucket or breaker, apart for each user."""
    short = hashlib.sha256(name.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"likeness-{os.getuid()}" / f"{kind}-{short}.json"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[dict[str, Any]]:
    """The file's JSON object, written back before the lock is released."""
    # The names can be guessed and the temporary folder is everybody's: nobody else may have put
    # something, least of all a link, where this file goes.
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.parent.is_symlink() or path.parent.stat().st_uid != os.getuid():
        raise UserError(f"{path.parent} belongs to somebody else: have it removed, or set TMPDIR")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            found = json.loads(file.read())
        except ValueError:
            found = None
        # Anything that is not ours counts as a fresh start.
        state = found if isinstance(found, dict) else {}
        if not all(isinstance(value, int | float) for value in state.values()):
            state = {}
        yield state
        file.truncate(0)
        file.write(json.dumps(state).encode())


@dataclass(frozen=True)
class TokenBucket:
    """At most `burst` starts at once and `per_minute` in the long run."""

    path: Path
    per_minute: float
    burst: int

    def take(self) -> None:
        """Wait for a token, beside others: none is held for later, so who is killed owes none."""
        while wait := self.ask(time.time()):
            if wait > LONG:
                _tell(self.path, f"waiting {wait:.0f} s for download.per_minute")
            time.sleep(wait)

    def ask(self, now: float) -> float:
        """Take a token: 0, or the seconds until there may be one."""
        rate = self.per_minute / 60
        with _locked(self.path) as state:
            # Older versions took tokens of the future, and left that debt when they were killed.
            tokens: float = max(0.0, state.get("tokens", float(self.burst)))
            elapsed = max(0.0, now - state.get("at", now))
            tokens = min(float(self.burst), tokens + elapsed * rate)
            taken = tokens >= 1
            state["tokens"], state["at"] = tokens - taken, now
        return 0.0 if taken else (1 - tokens) / rate


_told: set[Path] = set()


def _tell(bucket: Path, words: str) -> None:
    """Once for each bucket and process: it goes on like that."""
    if bucket not in _told:
        _told.add(bucket)
        complain(words)


@dataclass(frozen=True)
class Breaker:
    """Opens after `limit` bot-checks and stays open for the rest of the run."""

    path: Path
    limit: int

    def trip(self) -> None:
        """Count one bot-check."""
        with _locked(self.path) as state:
            state["trips"] = state.get("trips", 0) + 1

    def is_open(self) -> bool:
        """Whether to stop asking."""
        if not self.path.exists():
            return False
        with _locked(self.path) as state:
            return bool(state.get("trips", 0) >= self.limit)


def backoff(first: float, attempt: int, retry_after: float | None = None) -> float:
    """Seconds before retry number `attempt` (0 is the first): exponential with jitter.

    A server's Retry-After is honoured, up to five minutes.
    """
    wait: float = first * 2**attempt * random.uniform(0.5, 1.5)
    return max(wait, min(retry_after or 0.0, 300.0))
