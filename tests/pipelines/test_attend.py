"""Waiting for a run in another thread; the whole way is in end_to_end/test_faults.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from pipelines.attend import WorkerLost, attend


def test_it_waits_and_restores_the_hook() -> None:
    before, seen = threading.excepthook, []
    attend(lambda: seen.append(threading.current_thread()))
    assert seen
    assert seen[0] is not threading.current_thread()
    assert threading.excepthook is before


def test_what_the_run_raises_is_raised() -> None:
    def run() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attend(run)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("-9", "killed (SIGKILL, often for lack of memory)"),
        ("137", "killed (SIGKILL, often for lack of memory)"),
        ("-11", "killed (SIGSEGV)"),
        ("1", "ended with exit code 1"),
    ],
)
def test_a_lost_worker_ends_the_wait(
    code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def run() -> None:
        def sit_by() -> None:
            raise RuntimeError(f"Worker subprocess exited with return code {code}")

        threading.Thread(target=sit_by, name="run_worker").start()
        threading.Event().wait(60)

    started = time.monotonic()
    with pytest.raises(WorkerLost) as lost:
        attend(run)
    assert words in str(lost.value)
    assert time.monotonic() - started < 10


class Late(threading.Thread):
    """Leaves `start` when the signal was sent: a Ctrl-C that comes before the wait."""

    sent = threading.Event()

    def start(self) -> None:
        super().start()
        self.sent.wait(60)


@pytest.mark.parametrize("thread", [threading.Thread, Late])
def test_ctrl_c_ends_the_wait_and_the_workers_alone(
    thread: type[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr("pipelines.attend.threading.Thread", thread)
    Late.sent.clear()
    idle = "import time; time.sleep(60)"
    workers: list[subprocess.Popen[bytes]] = []
    bystander = subprocess.Popen([sys.executable, "-c", idle])

    def run() -> None:
        workers.append(subprocess.Popen([sys.executable, "-c", idle, "sdk_worker_main"]))
        while not any("sdk_worker_main" in w for w in psutil.Process(workers[0].pid).cmdline()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        Late.sent.set()
        threading.Event().wait(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            attend(run)
        assert workers[0].wait(10) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
