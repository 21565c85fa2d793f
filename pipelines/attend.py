"""Waits for a Beam run: Ctrl-C ends it at once, and so does the loss of a worker process.

Beam's local runner waits for ever for a worker process that was killed, and it turns Ctrl-C
into a traceback from each worker.
"""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import threading
from collections.abc import Callable

import psutil

_WORKER_THREAD = "run_worker"
"""What Beam calls the thread that sits by a worker process and raises when it fails."""
_WORKER_MODULE = "sdk_worker_main"


class WorkerLost(Exception):
    """A worker process ended before its work; the message says how."""


def attend(run: Callable[[], object]) -> None:
    """Call `run` in a thread of its own and wait for it.

    Raises what `run` raises, WorkerLost, or KeyboardInterrupt; then no worker process is left.
    """
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    usual = threading.excepthook

    def body() -> None:
        # Ctrl-C is for the thread that waits; whatever is started here inherits that.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            ended.put(error)
        else:
            ended.put(None)

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and failure.thread.name == _WORKER_THREAD:
            ended.put(WorkerLost(_how(str(failure.exc_value))))
        else:
            usual(failure)

    threading.excepthook = hook
    try:
        threading.Thread(target=body, name="beam", daemon=True).start()
        failure = ended.get()
        if failure is not None:
            raise failure
    except BaseException:
        _end_workers()  # The hook stays, to swallow what their threads say of it.
        raise
    threading.excepthook = usual


def _how(words: str) -> str:
    """Beam's words about a worker's exit code, for people."""
    code = int(found[0]) if (found := re.search(r"-?\d+$", words)) else 0
    number = -code if code < 0 else code - 128  # a shell adds 128
    if number not in set(signal.Signals):
        return f"a worker process ended with exit code {code}"
    hint = ", often for lack of memory" if number == signal.SIGKILL else ""
    return f"a worker process was killed ({signal.Signals(number).name}{hint})"


def _end_workers() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(_WORKER_MODULE in word for word in process.cmdline()):
                process.kill()
