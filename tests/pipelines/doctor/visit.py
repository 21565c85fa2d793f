"""What a visit to the doctor takes: annotations to look at, and its words in short."""

from __future__ import annotations

from pathlib import Path

from utterances import write_utterance

from pipelines.doctor.verdict import Verdicts
from pipelines.params import Params

Found = dict[str, str]


def told(found: Verdicts) -> Found:
    """The level of each line by its name."""
    return {verdict.name: verdict.level for verdict in found}


def lines(found: Verdicts) -> str:
    return "\n".join(verdict.line() for verdict in found)


def clips(params: Params, person: int = 2) -> None:
    """Annotations of a few clips."""
    for n in range(person):
        lefts = dict.fromkeys(range(250, 500), 0.1)
        root = Path(params.catalog.metadata)
        write_utterance(root, f"id{n}", f"video{n}", "00001", lefts, offset=0)
