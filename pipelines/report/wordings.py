"""The tools' own words: which wordings a status came in, how often, and for which clips.

Words that differ only in whose clip they tell of are one wording. The identifiers in them are
replaced by marks, and put back where a single clip is shown.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.funnel import Funnel, kind
from pipelines.statuses import STATUS, Status

SHOWN = 12
"""Wordings of a status that are shown."""
EXAMPLES = 10
MANY = 2000
"""Wordings of a status that are told apart by their numbers; more would be no pattern."""
SHORTEST = 4
"""Letters: a shorter identifier turns up in words by chance."""

PERSON, VIDEO, CLIP = "\x01", "\x02", "\x03"
"""Marks that no tool's words hold, since control characters are taken out of them."""
_SHOWN_AS = str.maketrans({PERSON: "‹person›", VIDEO: "‹video›", CLIP: "‹clip›"})
# An HTTP status is what it is about; any other number is one of many.
_NUMBER = re.compile(r"(?<!HTTP )(?<!HTTP Error )(?<![\d.,])-?\d+(?:[.,]\d+)*")

Row = dict[str, Any]


def marked(detail: str, row: Row) -> str:
    """A clip's words with its identifiers as marks."""
    for name, mark in (("key", CLIP), ("video", VIDEO), ("person", PERSON)):
        if len(row[name]) >= SHORTEST:
            detail = detail.replace(row[name], mark)
    return detail


def without_numbers(wording: str) -> str:
    """The pattern that wordings share."""
    return _NUMBER.sub("#", wording)


@dataclass
class Wording:
    """Words that several clips share."""

    stage: str
    words: str
    clips: int = 0
    examples: list[Row] = field(default_factory=list)

    def add(self, other: Wording) -> None:
        """Take over what another wording counted."""
        self.clips += other.clips
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    @property
    def shown(self) -> str:
        """For people."""
        return self.words.translate(_SHOWN_AS)


@dataclass
class StatusPage:
    """All about one status."""

    status: Status
    kind: str
    meaning: str
    remedy: str
    transient: bool
    clips: int
    videos: int
    stages: list[str]
    commands: list[str]
    wordings: list[Wording]
    others: int
    """Wordings that are not shown,"""
    others_clips: int
    """and their clips."""
    examples: list[Row]


def status_pages(funnel: Funnel, verdicts: pa.Table) -> list[StatusPage]:
    """A page for every status but ok that a manifest has, in the order of the stages."""
    told = _listen(verdicts)
    stages: dict[str, list[str]] = defaultdict(list)
    clips: Counter[str] = Counter()
    for step in funnel.steps:
        met = sorted(step.rows.keys() | step.losses.keys(), key=lambda s: (-step.losses[s], s))
        for status in met:
            if status != Status.OK:
                stages[status].append(step.stage)
                clips[status] += step.losses[status]
    return [_page(Status(s), stages[s], clips[s], told.get(s, _Told())) for s in stages]


@dataclass
class _Told:
    """What was said with one status."""

    wordings: dict[tuple[str, str], Wording] = field(default_factory=dict)
    videos: set[tuple[str, str]] = field(default_factory=set)

    def add(self, row: Row) -> None:
        words = marked(row["detail"], row)
        if (row["stage"], words) not in self.wordings and len(self.wordings) >= MANY:
            words = without_numbers(words)
        wording = self.wordings.setdefault((row["stage"], words), Wording(row["stage"], words))
        wording.clips += 1
        if len(wording.examples) < EXAMPLES:
            wording.examples.append(row)
        if row["video"]:
            self.videos.add((row["source"], row["video"]))

    def ordered(self) -> list[Wording]:
        """The most frequent first; by pattern where there are too many to read."""
        found = self.wordings
        if len(found) > SHOWN:
            merged: dict[tuple[str, str], Wording] = {}
            for (stage, words), wording in found.items():
                pattern = without_numbers(words)
                merged.setdefault((stage, pattern), Wording(stage, pattern)).add(wording)
            found = merged
        return sorted(found.values(), key=lambda w: (-w.clips, w.stage, w.words))


def _listen(verdicts: pa.Table) -> dict[str, _Told]:
    """The words of all clips that did not arrive; those taken out on request are passed over."""
    silent = pa.array([Status.OK, Status.EXCLUDED], pa.string())
    failed = verdicts.filter(pc.invert(pc.is_in(verdicts["status"], silent)))
    told: dict[str, _Told] = defaultdict(_Told)
    for batch in failed.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            told[row["status"]].add(row)
    return told


def _page(status: Status, stages: list[str], clips: int, told: _Told) -> StatusPage:
    wordings = told.ordered()
    shown, others = wordings[:SHOWN], wordings[SHOWN:]
    info = STATUS[status]
    return StatusPage(
        status=status,
        kind=kind(status),
        meaning=info.meaning,
        remedy=info.remedy,
        transient=info.transient,
        clips=clips,
        videos=len(told.videos),
        stages=stages,
        commands=commands(status, stages),
        wordings=shown,
        others=len(others),
        others_clips=sum(wording.clips for wording in others),
        examples=list(_spread(shown)),
    )


def _spread(wordings: list[Wording]) -> Iterator[Row]:
    """A few rows, one of each wording before the second of any."""
    rounds = (w.examples[turn] for turn in range(EXAMPLES) for w in wordings if _has(w, turn))
    for _, row in zip(range(EXAMPLES), rounds, strict=False):
        yield row


def _has(wording: Wording, turn: int) -> bool:
    return turn < len(wording.examples)


FETCHED_AGAIN = frozenset(
    status for status, info in STATUS.items() if "download" in info.stage.split(", ")
) - {Status.EXCLUDED, Status.DEFERRED}
RETRIED = FETCHED_AGAIN | {Status.DECODE_ERROR, Status.INTERNAL_ERROR}
"""Worth asking for by name; all else changes by itself once params.yaml or a file does."""
NOTHING_TO_DO = frozenset({Status.EXCLUDED, Status.OUT_OF_RANGE})


def commands(status: Status, stages: list[str]) -> list[str]:
    """What to type, once the cause is mended."""
    if status in NOTHING_TO_DO:
        return []
    if status in (Status.DEFERRED, Status.SOURCE_MISSING):
        return ["python -m pipelines.download", "dvc repro"]
    if status not in RETRIED:
        return ["dvc repro"]
    # The catalog is read anew each time and knows no --retry.
    again = [f"python -m pipelines.{s} --retry {status}" for s in stages if s != "catalog"]
    return [*again, "dvc repro"]
