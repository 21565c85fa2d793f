"""Live progress on local runners, and the summary tables.

Workers may be other processes, so they append a line per finished item to a small file of
their own; the driver reads how far all of them are. Nothing here decides what is written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipelines.errors import printable
from pipelines.statuses import STATUS, Status

if TYPE_CHECKING:
    from pipelines.summary import Summary

STOP_FILE = "stop"
_HELD = 1.0
"""Seconds for which Beam's words and the reason of a stop may come in either order."""
PLAIN_EVERY = 15.0
"""Seconds between progress lines where there is no terminal to redraw."""
SIMPLE_EVERY = 30.0
"""The same for work that is mostly over before."""


class Reporter:
    """The worker's side: one line per item, or nothing on a remote runner."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._path = Path(folder, f"{os.getpid()}.log") if folder else None

    def item(self, statuses: Counter[str]) -> None:
        """Report a finished item's rows."""
        if self._path:
            words = " ".join(f"{status}={n}" for status, n in statuses.items())
            with self._path.open("a") as file:
                file.write(words + "\n")

    def stop(self, why: str) -> None:
        """Report why the stage must stop, in words for people."""
        if self._folder:
            Path(self._folder, STOP_FILE).write_text(why)


def stop_reason(folder: str | None) -> str | None:
    """What a worker said before it stopped the stage."""
    path = Path(folder, STOP_FILE) if folder else None
    return path.read_text() if path and path.is_file() else None


class Page(Console):
    """A console whose reader may go, as in `... | head`: that is no failure of the command's."""

    def on_broken_pipe(self) -> None:
        """rich would end the program with 1, which may mean something else."""
        raise BrokenPipeError


class _Counts:
    """Running totals over all workers' files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.statuses: Counter[str] = Counter()

    def update(self) -> int:
        for path in self._folder.glob("*.log"):
            with path.open() as file:
                file.seek(self._read.get(path, 0))
                while line := file.readline():
                    if not line.endswith("\n"):
                        break
                    self._read[path] = file.tell()
                    for word in line.split():
                        status, _, n = word.partition("=")
                        self.statuses[status] += int(n)
        return self.statuses.total()

    def words(self) -> str:
        return " ".join(f"{status} {n}" for status, n in self.statuses.most_common(4))


@contextlib.contextmanager
def watch(stage: str, unit: str, total: int, local: bool) -> Iterator[str | None]:
    """Show progress over `total` rows while the block runs; yields the folder to report to."""
    if not local:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="likeness-"))
    counts = _Counts(folder)
    ended = threading.Event()
    try:
        with _quiet_stderr(folder) as terminal:
            console = Console(file=terminal)
            draw = _draw_bar if console.is_terminal else _print_lines
            thread = threading.Thread(
                target=draw, args=(console, stage, unit, total, counts, ended), daemon=True
            )
            thread.start()
            try:
                yield str(folder)
            finally:
                ended.set()
                thread.join(timeout=5)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What Beam's workers and native libraries say on every run. Whatever else is said, passes.
_CHATTER = re.compile(
    r"^(INFO|DEBUG):|^WARNING:(__main__|apache_beam[\w.]*|root:apitools)"
    r"|^[IW]\d{4} \d\d:\d\d:|^[IW]0000 00:00:|^WARNING: All log messages before absl"
    r"|^INFO: Created TensorFlow Lite|SymbolDatabase.GetPrototype\(\) is deprecated"
    r"|^\s+warnings.warn\('SymbolDatabase"
)


def mute_import_chatter() -> None:
    """Drop what importing Beam without its Google extra says each time."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="google.api_core")
    chatter = ("apitools", "GCSFileSystem")
    logging.getLogger().addFilter(lambda r: not any(word in r.getMessage() for word in chatter))


@contextlib.contextmanager
def _quiet_stderr(folder: Path) -> Iterator[TextIO]:
    """Filter this process's and its children's stderr line by line; yields the real one.

    After a worker has said why it stops, Beam's tracebacks about it are dropped as well; they
    are held back for a moment, because they may come first.
    """
    sys.stderr.flush()
    real = os.dup(2)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    pumped = os.dup(real)  # the pump's own: it may outlive this block

    def pump() -> None:
        with os.fdopen(source, "rb") as lines, os.fdopen(pumped, "wb", buffering=0) as out:
            spoke = 0.0
            for line in lines:
                if _CHATTER.search(line.decode("utf-8", "replace")):
                    continue
                if time.monotonic() - spoke > 1:
                    time.sleep(_HELD)
                spoke = time.monotonic()
                if not (folder / STOP_FILE).exists():
                    out.write(line)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        with os.fdopen(os.dup(real), "w", buffering=1) as terminal:
            yield terminal
    finally:
        if (folder / STOP_FILE).exists():
            time.sleep(_HELD)  # Beam's threads have their say about it, unheard
        sys.stderr.flush()
        os.dup2(real, 2)
        # A child that outlives us keeps the pipe open: do not wait for it.
        thread.join(timeout=2)
        os.close(real)


def _draw_bar(
    console: Console, stage: str, unit: str, total: int, counts: _Counts, ended: threading.Event
) -> None:
    bar = Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        TextColumn("{task.fields[statuses]}", style="dim"),
        console=console,
    )
    with bar:
        task = bar.add_task(stage, total=total, statuses="")
        started = time.monotonic()
        last = False
        while not last:
            last = ended.wait(0.3)
            done = counts.update()
            rate = done / max(time.monotonic() - started, 1e-9)
            words = f"{rate:.1f} {unit}/s  {counts.words()}"
            bar.update(task, completed=done, statuses=words)


def _print_lines(
    console: Console, stage: str, unit: str, total: int, counts: _Counts, ended: threading.Event
) -> None:
    started = time.monotonic()
    while not ended.wait(PLAIN_EVERY):
        done = counts.update()
        elapsed = time.monotonic() - started
        left = elapsed / done * (total - done) if done else 0.0
        rate = done / elapsed
        eta = f"{left:.0f} s left" if done else "starting"
        console.file.write(
            f"{stage}: {done}/{total} {unit}, {rate:.1f}/s, {eta} ({counts.words()})\n"
        )
        console.file.flush()


@contextlib.contextmanager
def simple(what: str, unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar for work in this process, or lines where there is no terminal.

    Yields what to call with each count.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, unit, total)
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        TextColumn(unit, style="dim"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def _lines(what: str, unit: str, total: int | None) -> Callable[[int], None]:
    started = said = time.monotonic()
    done = 0

    def count(n: int) -> None:
        nonlocal said, done
        done += n
        now = time.monotonic()
        if now - said >= SIMPLE_EVERY:
            said = now
            of = f"{done}/{total}" if total else f"{done}"
            sys.stderr.write(f"{what}: {of} {unit}, {done / (now - started):.1f}/s\n")

    return count


def complain(text: str) -> None:
    """One line on stderr per problem."""
    for line in text.rstrip("\n").split("\n"):  # at nothing else: a \r would overwrite the line
        sys.stderr.write(f"likeness: {printable(line)}\n")


def say(text: str) -> None:
    """A line on stdout, or several; what names others chose cannot steer the terminal."""
    lines = ("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
    sys.stdout.write("\n".join(lines) + "\n")


def show_summary(summary: Summary) -> None:
    """The final table of a stage."""
    table = Table()
    table.add_column("status")
    table.add_column(summary.unit, justify="right")
    table.add_column("share", justify="right")
    table.add_column("what to do", overflow="fold")
    for status, n in sorted(summary.statuses.items(), key=lambda pair: (pair[0] != "ok", -pair[1])):
        advice = "" if status == "ok" else STATUS[Status(status)].remedy
        table.add_row(status, str(n), f"{n / max(summary.rows, 1):.1%}", advice)
    say(
        f"{summary.stage}: {summary.rows} {summary.unit} in {summary.seconds:.1f} s "
        f"({summary.cpu_seconds:.1f} CPU s, {summary.peak_mib:.0f} MiB)"
    )
    Page(width=None if sys.stdout.isatty() else 110).print(table)
    if summary.done_before:
        say(f"{summary.done_before} of {summary.items} items were already done and kept.")
