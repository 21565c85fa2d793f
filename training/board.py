"""What a person sees of a run: a progress line, TensorBoard, DVCLive, picture grids.

The run's history, one JSON line a step, is the truth; DVCLive's files are written anew from it
when a run goes on, so that they are those of an undisturbed run.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

from dvclive import Live
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from scmrepo.exceptions import SCMError
from torch.utils.tensorboard import SummaryWriter

from pipelines import progress, storage
from pipelines.errors import FATAL_ERRNOS, StopStage
from training.events import Event, Pictured, Saved, Started, Stepped, Stopped
from training.grid import grid, save_png

MEANS = 1000
"""Steps at most over which losses are told."""
POINTS = 500
"""Points of a curve at least kept."""
HEADINGS = ("source", "landmarks", "output (FF)", "target")


class _Live(Live):  # type: ignore[misc]
    """DVCLive wants to know git's newest commit, and fell where there is none yet."""

    def _init_dvc(self) -> None:
        with suppress(SCMError):
            super()._init_dvc()


class Board:
    """Takes the events of a run.

    folder: the run's, on this machine; live: DVCLive's folder; content: the backbones of the
    content loss, which make losses of two runs comparable or not.
    """

    def __init__(self, folder: Path, live: Path, content: str) -> None:
        self.folder, self.live_folder, self.content = folder, live, content
        self.started: Started | None = None
        self.stopped: Stopped | None = None
        self.step = self.first = 0
        """The last step that was made, and the one that this command went on from."""
        self._live: Live | None = None
        self._writer: SummaryWriter | None = None
        self._history: TextIO | None = None
        self._every = 1
        self._recent: deque[dict[str, Any]] = deque()
        """The losses of an epoch's steps, `MEANS` at most: one step's are mostly its batch's."""
        self._line = _Line()

    def __call__(self, event: Event) -> None:
        """Show an event. Raises StopStage where the disk does not take it."""
        with self._room():
            match event:
                case Started():
                    self._start(event)
                case Stepped():
                    self._keep(event)
                    self._line.step(event.step, self._means())
                case Pictured():
                    self._picture(event)
                case Saved():
                    self._line.saved = event.step
                case Stopped():
                    self.stopped = self.stopped or event

    def close(self) -> None:
        """Finish all files. Raises as a call."""
        self._line.close()
        files = (self._history, self._writer)
        self._history = self._writer = None
        with self._room():
            for file in files:
                if file:
                    file.close()
            if self._live:
                self._live.end()

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FATAL_ERRNOS:
                raise
            raise StopStage(
                f"{self.folder}: the run's curves and pictures could not be written "
                f"({error.strerror or error}); its checkpoints are kept: make room, then run the "
                "same command to go on"
            ) from error

    def _start(self, event: Started) -> None:
        """Also when Ray has replaced workers: what was done after the checkpoint is undone."""
        self.close()
        if self.started is not None:
            progress.complain(f"train: workers were started anew, from step {event.step} on")
        else:
            self.first = event.step
            if event.step:
                progress.say(f"train: goes on from step {event.step} of {event.total}")
        self.started, self.step = event, event.step
        self._recent = deque(maxlen=min(MEANS, ceil(event.videos / event.batch)))
        self._every = max(1, event.total // POINTS)
        for note in event.notes:
            progress.complain(note)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "history.jsonl"
        curves = []
        with storage.atomic(str(path)) as anew, anew.open("w", encoding="utf-8") as file:
            for line in _past(path, event):
                file.write(json.dumps(line) + "\n")
                self._recent.append(line)
                if self._shown(line["step"]):
                    curves.append(line)
        self._history = path.open("a", encoding="utf-8")
        threading.excepthook = _told_later
        self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=event.step + 1)
        self._writer.add_text("content loss", self.content, event.step)
        shutil.rmtree(self.live_folder, ignore_errors=True)
        logging.getLogger("dvclive").setLevel(logging.ERROR)
        self._live = _Live(
            str(self.live_folder),
            save_dvc_exp=False,
            dvcyaml=None,
            report=None,
            monitor_system=False,
        )
        self._live.log_metric("content_backbones", self.content, plot=False)
        for line in curves:
            self._curve(self._live, line["step"], line)
        self._summarize(self._live)
        self._line = _Line(event)

    def _keep(self, event: Stepped) -> None:
        assert self._history and self._writer and self._live
        self.step = event.step
        self._history.write(json.dumps({"step": event.step, **event.losses}) + "\n")
        self._history.flush()
        self._recent.append(event.losses)
        self._curve(self._live, event.step, event.losses)
        if self._shown(event.step):
            for name, value in event.losses.items():
                self._writer.add_scalar(f"loss/{name}", value, event.step)

    def _shown(self, step: int) -> bool:
        assert self.started
        return step % self._every == 0 or step == self.started.total

    def _curve(self, live: Live, step: int, losses: dict[str, Any]) -> None:
        if self._shown(step):
            live.step = step
            for name, value in losses.items():
                if name != "step":
                    live.log_metric(name, value)
            self._summarize(live)

    def _means(self) -> dict[str, float]:
        """Of the last epoch's losses."""
        names = set.intersection(*map(set, self._recent)) - {"step"}
        return {name: fmean(losses[name] for losses in self._recent) for name in sorted(names)}

    def _summarize(self, live: Live) -> None:
        """What `dvc metrics diff` compares."""
        if self._recent:
            live.summary.update(self._means())
            live.make_summary()

    def _picture(self, event: Pictured) -> None:
        assert self._writer
        picture = grid(event.rows, HEADINGS, event.labels)
        for name in (f"step-{event.step:09d}.png", "newest.png"):
            save_png(picture, str(self.folder / "grids" / name))
        self._writer.add_image("grid", picture, event.step, dataformats="HWC")


def _told_later(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread fails with what its next call raises: a traceback says it twice."""
    if not (issubclass(args.exc_type, OSError) and "AsyncWriter" in type(args.thread).__name__):
        threading.__excepthook__(args)


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """The steps of a history; an unfinished last line, of a killed driver, is left out.

    So are lines that a disk damaged: curves shall not keep a run from going on.
    """
    if not path.exists():
        return
    damaged = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.endswith("\n"):
                continue
            try:
                told = json.loads(line)
                int(told["step"])
            except (ValueError, TypeError, KeyError):
                damaged += 1
            else:
                yield told
    if damaged:
        progress.complain(f"{path}: {damaged} damaged lines are left out of the curves")


def _past(path: Path, started: Started) -> Iterator[dict[str, Any]]:
    """The steps up to the one a run goes on from: a history's, and last those of its checkpoint.

    One at a time: a full run has some hundred thousand.
    """
    known = started.history[0].step if started.history else started.step + 1
    for line in read_history(path):
        if line["step"] < known:
            yield line
    for old in started.history:
        yield {"step": old.step, **old.losses}


class _Line:
    """The progress line: a bar on a terminal, a line every so often elsewhere."""

    def __init__(self, started: Started | None = None) -> None:
        self.saved = started.step if started else 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if not started:
            return
        self._first, self._total, self._begun = started.step, started.total, time.monotonic()
        self._epoch_steps = max(started.videos / started.batch, 1e-9)
        self._said = self._begun
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(
                TextColumn("train"), *columns, TextColumn("{task.fields[words]}"), console=console
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=started.total, completed=started.step, words=""
            )

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """A step has been made; losses as they are to be told."""
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._begun, 1e-9)
        words = (
            f"epoch {step / self._epoch_steps:.1f}  {rate:.2f} it/s  "
            f"G {losses['generator']:.2f} (content {losses['content']:.2f})  "
            f"D {losses['discriminator']:.2f}  saved at {self.saved}"
        )
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step, words=words)
        elif now - self._said >= progress.PLAIN_EVERY or step == self._total:
            self._said = now
            left = (self._total - step) / max(rate, 1e-9)
            progress.say(f"train: {step}/{self._total}, {left:.0f} s left  {words}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
