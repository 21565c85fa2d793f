"""Ctrl-C while libraries are still being imported, which takes seconds: one line, no traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType


def end_quietly() -> None:
    """Until `command.guarded` takes over, an interruption ends a command of ours with 130."""
    if sys.argv[:1] == ["-m"]:  # `python -m pipelines.x`, still before that module is imported
        sys.excepthook = _told


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("likeness: interrupted\n")
    sys.stderr.flush()
    os._exit(130)
