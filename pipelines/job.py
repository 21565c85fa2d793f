"""What a stage hands to the engine: items of work, and the worker that turns them into rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from pipelines.params import Params
from pipelines.statuses import Status


class Span(NamedTuple):
    """Rows [start, stop) of the stage's input manifest, and the manifest rows they come out as."""

    start: int
    stop: int
    rows: int


@dataclass(frozen=True, slots=True)
class Item:
    """One unit of work: rows [start, stop) of the stage's input manifest."""

    name: str
    fingerprint: str
    """Digest of everything that decides the item's rows: inputs, params, kernel version."""
    start: int
    stop: int
    rows: int
    """Manifest rows that [start, stop) comes out as."""
    also: tuple[Span, ...] = ()
    """Further spans, later in the input: a video's clips of another person or source."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """All its spans, in the order of the input and of the rows it comes out as."""
        return Span(self.start, self.stop, self.rows), *self.also

    @property
    def total(self) -> int:
        """Manifest rows it must come out as."""
        return sum(span.rows for span in self.spans)


class Worker(Protocol):
    """Turns items into manifest rows. Pickled to Beam's workers; `setup` runs once in each."""

    threads: int

    def setup(self) -> None:
        """Load models, open manifests."""

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """The rows of one item. Any exception not for people becomes INTERNAL_ERROR rows."""

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """The rows of an item that could not be processed."""


@dataclass(frozen=True)
class Job:
    """A stage made ready to run."""

    stage: str
    params: Params
    schema: pa.Schema
    worker: Worker
    items: Sequence[Item]
    unit: str
    max_failed: float
    always_retry: frozenset[Status] = frozenset()
    """Statuses taken up again on every run, asked or not."""
    folder: str | None = None
    """Where in the work folder the rows' `path` lies: a file gone from it is made again."""
    is_done: Callable[[pa.Table], bool] | None = None
    """Further checks that what a record speaks of still holds."""
    judge: Callable[[pa.Table], pa.Table] | None = None
    """Makes the manifest's rows of a record's: thresholds, so that others redo no item."""
    finish: Callable[[], None] | None = None
    """Runs after the manifest is complete."""

    @property
    def manifest(self) -> str:
        return self.params.paths.manifest(self.stage)
