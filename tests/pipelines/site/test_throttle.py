"""The token bucket and the breaker: kept by all processes, and by damaged files too."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.site.throttle import Breaker, TokenBucket, backoff, state_file

DAMAGED = [
    b"",
    b"{",
    b"null",
    b"[1]",
    b"5",
    b'"x"',
    b"\xff\x00",
    b'{"tokens": "many"}',
    b'{"at": []}',
]


@settings(max_examples=40, deadline=None)
@given(
    per_minute=st.floats(0.5, 600),
    burst=st.integers(1, 10),
    pauses=st.lists(st.floats(0, 60), min_size=1, max_size=40),
)
def test_no_span_of_time_sees_more_starts_than_burst_and_rate_allow(
    tmp_path_factory: pytest.TempPathFactory, per_minute: float, burst: int, pauses: list[float]
) -> None:
    path = tmp_path_factory.mktemp("bucket") / "state.json"
    now, starts = 1e6, []
    for pause in pauses:
        now += pause
        # A bucket object per request: the state is the file's.
        while wait := TokenBucket(path, per_minute, burst).ask(now):
            now += max(wait, 1e-6)  # a clock goes on
        starts.append(now)
    assert starts == sorted(starts)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            allowed = burst + per_minute / 60 * (starts[last] - starts[first])
            assert last - first + 1 <= allowed + 1e-3


def test_a_burst_goes_at_once_and_the_rest_in_step(tmp_path: Path) -> None:
    bucket = TokenBucket(tmp_path / "state.json", per_minute=60, burst=3)
    assert [bucket.ask(0) for _ in range(3)] == [0, 0, 0]
    assert [bucket.ask(at) for at in (0, 0.25, 1, 1.5, 2, 2)] == [1, 0.75, 0, 0.5, 0, 1]
    assert bucket.ask(100) == 0


def test_who_is_killed_while_waiting_leaves_no_debt(tmp_path: Path) -> None:
    bucket = TokenBucket(tmp_path / "state.json", per_minute=20, burst=4)
    assert {bucket.ask(1000) for _ in range(64)} == {0, 3}
    assert bucket.ask(1000) == 3
    (tmp_path / "state.json").write_text('{"tokens": -60.0, "at": 1000.0}')  # an older version's
    assert bucket.ask(1000) == 3


def test_a_clock_set_back_gives_no_extra_tokens_and_does_not_hang(tmp_path: Path) -> None:
    bucket = TokenBucket(tmp_path / "state.json", per_minute=60, burst=1)
    assert bucket.ask(1e9) == 0
    assert bucket.ask(5.0) == pytest.approx(1)
    assert bucket.ask(6.0) == 0
    assert bucket.ask(6.0) == pytest.approx(1)


@pytest.mark.parametrize("rubbish", DAMAGED)
def test_a_damaged_state_file_is_a_fresh_start(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(rubbish)
    bucket = TokenBucket(path, per_minute=60, burst=1)
    assert bucket.ask(0) == 0
    assert bucket.ask(0) == pytest.approx(1)
    path.write_bytes(rubbish)
    breaker = Breaker(path, limit=1)
    assert not breaker.is_open()
    path.write_bytes(rubbish)
    breaker.trip()
    assert breaker.is_open()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on while somebody sleeps; its only item is the time."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    return now


def test_take_waits_for_its_token(tmp_path: Path, clock: list[float]) -> None:
    bucket = TokenBucket(tmp_path / "state.json", per_minute=60, burst=1)
    bucket.take()
    assert clock == [1000]
    bucket.take()
    assert clock == [1001]


def test_a_long_wait_is_told_once(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for per_minute, words in (
        (6.0, ""),
        (0.5, "likeness: waiting 120 s for download.per_minute\n"),
    ):
        bucket = TokenBucket(tmp_path / f"{per_minute}.json", per_minute, burst=1)
        for _ in range(4):
            bucket.take()
        assert capsys.readouterr().err == words
    assert clock[0] == pytest.approx(1000 + 3 * 10 + 3 * 120)


def test_processes_share_one_bucket(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path\n"
        "from pipelines.site.throttle import TokenBucket\n"
        "bucket = TokenBucket(Path(sys.argv[1]), per_minute=60, burst=2)\n"
        "print(json.dumps([bucket.ask(1000.0) for _ in range(10)]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "state.json")]
    takers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    waits = [wait for taker in takers for wait in json.loads(taker.communicate(timeout=60)[0])]
    assert sorted(waits) == [0] * 2 + [1] * 28


def test_the_breaker_is_seen_by_every_instance(tmp_path: Path) -> None:
    path = tmp_path / "breaker.json"
    first, second = Breaker(path, limit=2), Breaker(path, limit=2)
    assert not first.is_open()
    assert not path.exists()
    first.trip()
    assert not second.is_open()
    second.trip()
    assert first.is_open()
    assert Breaker(path, limit=2).is_open()
    assert not Breaker(tmp_path / "another run.json", limit=2).is_open()


def test_state_files_are_apart_for_each_kind_and_egress() -> None:
    names = {state_file(*key) for key in [("bucket", "a"), ("bucket", "b"), ("breaker", "a")]}
    assert len(names) == 3
    assert "secret" not in str(state_file("bucket", "http://me:secret@proxy"))


@given(st.floats(0.01, 60), st.integers(0, 8), st.none() | st.floats(0, 1e6))
def test_backoff_doubles_with_jitter_and_honours_the_server_within_reason(
    first: float, attempt: int, after: float | None
) -> None:
    wait = backoff(first, attempt, after)
    asked = min(after or 0.0, 300.0)
    assert max(first * 2**attempt * 0.5, asked) <= wait
    assert wait <= max(first * 2**attempt * 1.5, asked)


def test_the_lock_is_released_at_once(tmp_path: Path) -> None:
    bucket = TokenBucket(tmp_path / "state.json", per_minute=1e6, burst=100)
    started = time.monotonic()
    for _ in range(100):
        bucket.ask(0)
    assert time.monotonic() - started < 1
