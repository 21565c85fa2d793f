"""What a dataset reader yields: annotated clips, people, and rows it could not read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipelines.errors import printable


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated clip, as its publisher states it. Field meanings: `schemas.CATALOG`."""

    person: str
    video: str
    utterance: str
    first_frame: int | None = None
    frames: int | None = None
    fps: float | None = 25.0
    segment_start: float | None = None
    boxes: npt.NDArray[np.float32] | None = None
    """(n, 4) float32 x, y, w, h; n = 1 or `frames`; None: the whole picture."""
    box_height: int | None = None
    crop_ready: bool = False
    split: str | None = None
    """train, val or test where the publisher says so."""
    url: str | None = None
    media: str | None = None
    """A ready crop on disk, no download needed."""
    offset: int | None = None
    fv_conf: float | None = None
    asd_conf: float | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """An annotation that could not be read."""

    where: str
    """`file:line` relative to the metadata root, or `file` where no line is to blame."""
    reason: str
    person: str = ""
    video: str = ""
    utterance: str = ""


class Reader(Protocol):
    """Reads one published list or tree, in the order (person, video, utterance), streaming.

    Never raises for damaged content: that becomes a `BadRow`, and the rest goes on. Raises
    `SourceError` when `path` itself is missing or holds nothing this reader knows.
    """

    def __call__(self, path: Path) -> Iterator[Annotation | BadRow]: ...


class SourceError(Exception):
    """A source of params.yaml that cannot be read at all; the message names path and remedy."""


class RowError(ValueError):
    """Why one annotation cannot be read, and on which line of its file if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


MAX_BOX_VALUE = 1e6
"""Larger than any picture, in pixels."""

# Identifiers come from outside and become file names, object-store and tar keys.
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,100}")


def is_safe(identifier: str) -> bool:
    """Whether an identifier can stand in a file name and in a key: 1 to 100 of A-Za-z0-9_-."""
    return _SAFE.fullmatch(identifier) is not None


def check_identifiers(*identifiers: str) -> None:
    """Raise RowError for the first identifier that is not safe."""
    for identifier in identifiers:
        if not is_safe(identifier):
            raise RowError(
                f"unsafe identifier {quote(identifier)}: use 1 to 100 of A-Z a-z 0-9 _ and -"
            )


def bad_row(where: str, reason: object, *identifiers: str) -> BadRow:
    """Build a BadRow that names those of person, video, utterance which are safe to repeat."""
    kept = [i if is_safe(i) else "" for i in identifiers]
    return BadRow(printable(where), printable(str(reason)), *kept)


def quote(text: str, limit: int = 60) -> str:
    """Quote a piece of foreign text for a message, shortened to `limit` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def one_box(x: float, y: float, width: float, height: float) -> npt.NDArray[np.float32]:
    """Return the (1, 4) float32 boxes of a clip with a single box; RowError if absurd."""
    if not max(map(abs, (x, y, width, height))) <= MAX_BOX_VALUE:
        raise RowError(f"a value of the box is beyond {MAX_BOX_VALUE:g}")
    box = np.array([[x, y, width, height]], dtype=np.float32)
    if not (box[0, 2] > 0 and box[0, 3] > 0):
        raise RowError(f"the box is {width:g} wide and {height:g} high; both must be positive")
    return box


def in_order(rows: Iterable[tuple[str, Annotation | BadRow]]) -> Iterator[Annotation | BadRow]:
    """Sort `(where, row)` pairs of a list that fits in memory by person, video, utterance.

    A clip listed twice is kept once, the rest become BadRows. Where the repeats disagree on
    the split the held-out one wins: a test clip must not be trained on.
    """
    ordered = sorted(
        rows,
        key=lambda pair: (
            pair[1].person,
            pair[1].video,
            pair[1].utterance,
            isinstance(pair[1], Annotation) and pair[1].split is None,
        ),
    )
    kept_where, kept = "", None
    for where, row in ordered:
        if isinstance(row, BadRow):
            yield row
            continue
        clip = (row.person, row.video, row.utterance)
        if kept is not None and clip == (kept.person, kept.video, kept.utterance):
            splits = "" if row.split == kept.split else f", kept in the split {kept.split} of that"
            yield bad_row(where, f"the same clip as {kept_where}{splits}", *clip)
        else:
            kept_where, kept = where, row
            yield row
